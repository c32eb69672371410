"""CPC's patch encoders: three stages of a pre-activation ResNet, then the spatial mean."""

from __future__ import annotations

from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnetv2 import PreActBottleneck, ResNetStage, ResNetV2
from torch import nn

from coview.nn.backbones import BackboneSettings


def resnet50(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Three stages of ResNet-v2-50: 1024 features; for small patches."""
    return _three_stages((3, 4, 6), channels, settings)


def resnet101(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Three stages of ResNet-v2-101: 1024 features (van den Oord et al. 2018, section 3.3)."""
    return _three_stages((3, 4, 23), channels, settings)


def resnet161(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """ResNet-161: 4096 features, 0.3 G parameters (Hénaff et al. 2019, section 2.2).

    The third stage of ResNet-101 has 46 blocks, 4096 channels and bottlenecks of 512.
    """
    net = _three_stages((3, 4, 1), channels, settings)
    net.stages[2] = ResNetStage(
        512,
        4096,
        stride=2,
        dilation=1,
        depth=46,
        bottle_ratio=0.125,
        conv_layer=_convolution,
        norm_layer=BatchNormAct2d,
    )
    net.num_features = 4096
    net.norm = BatchNormAct2d(4096)
    return _initialised(net)


def _three_stages(depths: tuple[int, ...], channels: int, settings: BackboneSettings) -> ResNetV2:
    net = ResNetV2(
        list(depths),
        channels=(256, 512, 1024),
        num_classes=0,
        in_chans=channels,
        norm_layer=BatchNormAct2d,
        conv_layer=_convolution,
        drop_path_rate=settings.drop_path,
    )
    if settings.stem == "3x3":
        net.stem = nn.Sequential(_convolution(channels, 64, 3))
    return _initialised(net)


def _initialised(net: ResNetV2) -> ResNetV2:
    """Initialise so that the network works without its norms, which an encoder may remove.

    Activations keep their scale (timm's fan-out rule shrinks them), and residual
    branches start at zero: otherwise each of thirty branches would double the
    variance of their sum. The paper does not give its initialisation.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    for module in net.modules():
        if isinstance(module, PreActBottleneck):
            module.zero_init_last()
    return net


def _convolution(
    inputs: int, outputs: int, kernel_size: int, stride: int = 1, dilation: int = 1, **rest: object
) -> nn.Conv2d:
    padding = (stride - 1 + dilation * (kernel_size - 1)) // 2
    return nn.Conv2d(
        inputs,
        outputs,
        kernel_size,
        stride,
        padding,
        dilation,
        bias=False,
        **rest,  # type: ignore[arg-type]
    )
