"""ResNets of up to 152 layers and three times the width, with and without selective kernels.

The form is the released code's (Chen et al. 2020, arXiv:2006.10029). Without
selective kernels it is the usual ResNet with its 7 x 7 stem and all widths
multiplied. Selective kernels always come with ResNet-D: a stem of three 3 x 3
convolutions, and shortcuts that average 2 x 2 pixels before a 1 x 1 convolution of
stride 1, in the first group too.
"""

from __future__ import annotations

from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from timm.models.sknet import SelectiveKernelBottleneck
from torch import nn

from coview.nn.backbones import BackboneSettings, Factory, first_layer, with_stem

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SK_RATIO = 0.0625
SK_LEAST = 32


class SKBottleneck(SelectiveKernelBottleneck):
    """A bottleneck that mixes two 3 x 3 convolutions in place of one (Li et al. 2019).

    Both streams see all channels, both kernels are 3 x 3, and the layer that weights
    them has a sixteenth of their width, but at least 32 channels.
    """

    def __init__(self, inplanes: int, planes: int, *arguments: Any, **named: Any) -> None:
        named["sk_kwargs"] = {
            "kernel_size": [3, 3],
            "split_input": False,
            "rd_channels": middle_width(planes),
        }
        super().__init__(inplanes, planes, *arguments, **named)


def middle_width(planes: int) -> int:
    """Return the width of the layer that weights two streams of ``planes`` channels."""
    return max(int(planes * SK_RATIO), SK_LEAST)


def resnet(
    depth: int,
    width: int,
    selective: bool,
    channels: int,
    settings: BackboneSettings,
) -> nn.Module:
    """Return a network of 2048 x ``width`` features.

    Args:
        depth: 50, 101 or 152 layers.
        width: factor of ResNet's widths.
        selective: use selective kernels and ResNet-D, or neither.
        channels: number of channels of the images.
        settings: the stem, and whether residual branches start at zero.
    """
    net = ResNet(
        SKBottleneck if selective else Bottleneck,  # type: ignore[arg-type]
        DEPTHS[depth],
        num_classes=0,
        in_chans=channels,
        channels=tuple(width * planes for planes in (64, 128, 256, 512)),
        # timm's plain stem always has 64 channels; its deep stem can have any width.
        stem_type="deep",
        stem_width=32 * width,
        avg_down=selective,
        zero_init_last=settings.zero_init_last,
        drop_path_rate=settings.drop_path,
    )
    if selective:
        _pool_shortcut(net)
    if settings.stem == "3x3":
        return with_stem(net, "3x3")
    if not selective:
        net.conv1 = first_layer(channels, 64 * width, 7, stride=2)  # type: ignore[assignment]
    return net


def _pool_shortcut(net: nn.Module) -> None:
    """Let the first group's shortcut average 2 x 2 pixels too, with stride 1.

    timm averages only where the stride is 2. At the border the mean is of the pixels that
    there are, which is that with the border repeated.
    """
    shortcut = net.layer1[0].downsample  # type: ignore[index, union-attr]
    shortcut[0] = nn.Sequential(  # type: ignore[index, operator]
        nn.ReplicationPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride=1)
    )


def _variant(depth: int, width: int, selective: bool) -> Factory:
    def build(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
        return resnet(depth, width, selective, channels, settings)

    return build


resnet50_1x = _variant(50, 1, False)
"""ResNet-50 of the usual width: 2048 features."""
resnet50_1x_sk = _variant(50, 1, True)
"""ResNet-50 of the usual width, with selective kernels: 2048 features."""
resnet50_2x = _variant(50, 2, False)
"""ResNet-50 of twice the width: 4096 features."""
resnet50_2x_sk = _variant(50, 2, True)
"""ResNet-50 of twice the width, with selective kernels: 4096 features."""
resnet50_3x = _variant(50, 3, False)
"""ResNet-50 of three times the width: 6144 features."""
resnet50_3x_sk = _variant(50, 3, True)
"""ResNet-50 of three times the width, with selective kernels: 6144 features."""
resnet101_1x = _variant(101, 1, False)
"""ResNet-101 of the usual width: 2048 features."""
resnet101_1x_sk = _variant(101, 1, True)
"""ResNet-101 of the usual width, with selective kernels: 2048 features."""
resnet101_2x = _variant(101, 2, False)
"""ResNet-101 of twice the width: 4096 features."""
resnet101_2x_sk = _variant(101, 2, True)
"""ResNet-101 of twice the width, with selective kernels: 4096 features."""
resnet101_3x = _variant(101, 3, False)
"""ResNet-101 of three times the width: 6144 features."""
resnet101_3x_sk = _variant(101, 3, True)
"""ResNet-101 of three times the width, with selective kernels: 6144 features."""
resnet152_1x = _variant(152, 1, False)
"""ResNet-152 of the usual width: 2048 features."""
resnet152_1x_sk = _variant(152, 1, True)
"""ResNet-152 of the usual width, with selective kernels: 2048 features."""
resnet152_2x = _variant(152, 2, False)
"""ResNet-152 of twice the width: 4096 features."""
resnet152_2x_sk = _variant(152, 2, True)
"""ResNet-152 of twice the width, with selective kernels: 4096 features."""
resnet152_3x = _variant(152, 3, False)
"""ResNet-152 of three times the width: 6144 features."""
resnet152_3x_sk = _variant(152, 3, True)
"""ResNet-152 of three times the width, with selective kernels: 6144 features."""
