"""Backbones, which map an image (B, C, H, W) to one feature vector (B, D).

A name is either registered by an installed package (group ``coview.backbones``)
or one of timm's, or it names the user's own code (:mod:`coview.nn.own`). timm's ResNets use
torchvision's parameter names.
"""

from __future__ import annotations

from typing import Any

import timm
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from coview.nn.own import from_module, own_network
from coview.own_code import is_code
from coview.plan import BackboneSpec, Factory
from coview.recipes.tables import STEMS, BackboneSettings
from coview.registry import Entry, find

__all__ = [
    "STEMS",
    "BackboneSettings",
    "BackboneSpec",
    "Factory",
    "TimmCatalogue",
    "find_backbone",
    "first_layer",
    "from_module",
    "is_convolutional",
    "resnet10_quarter",
    "with_stem",
]


class TimmCatalogue:
    """timm's models, and networks of the user's own: backbones that no package registered."""

    title = "timm"

    @staticmethod
    def find(name: str) -> Factory | None:
        """Return what builds a backbone; None: timm has no such model.

        Raises:
            RequestError: the name is that of the user's own code, which cannot be loaded.
        """
        if is_code(name):
            return own_network(name)
        if not timm.is_model(name):
            return None

        def build(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
            return _timm(name, channels, image_size, settings)

        return build

    @staticmethod
    def names() -> list[str]:
        """Return the names of all models."""
        return timm.list_models()


def find_backbone(name: str) -> tuple[Factory, Entry]:
    """Return what builds a backbone, and where it comes from.

    Raises:
        RequestError: neither a package nor timm knows the name.
    """
    entry = find("backbones", name)
    factory: Factory = entry.load()
    return factory, entry


def resnet10_quarter(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return a ResNet-10 of a quarter of ResNet-18's width: 0.3 M parameters, 128 features.

    Small enough for tests and demonstrations on two cores; not a network of any paper.
    """
    # timm fixes a plain stem at 64 channels. Its deep stem has any width, which the
    # single convolution that replaces it here takes over.
    net: nn.Module = ResNet(
        BasicBlock,  # type: ignore[arg-type]
        (1, 1, 1, 1),
        num_classes=0,
        in_chans=channels,
        channels=(16, 32, 64, 128),
        stem_type="deep",
        stem_width=8,
        zero_init_last=settings.zero_init_last,
        drop_path_rate=settings.drop_path,
    )
    net.conv1 = first_layer(channels, 16, 7, stride=2)
    return with_stem(net, settings.stem, settings.stem_padding)


def _timm(name: str, channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    extra: dict[str, Any] = {}
    is_resnet = name.startswith(("resnet", "wide_resnet", "resnext", "test_resnet"))
    if is_resnet:
        extra["zero_init_last"] = settings.zero_init_last
    if name.startswith(("vit", "deit", "test_vit")):
        # For other sizes than the first, the positions are interpolated.
        extra |= {"img_size": image_size, "dynamic_img_size": True}
        if settings.patch:
            extra["patch_size"] = settings.patch
    if settings.drop_path:
        extra["drop_path_rate"] = settings.drop_path
    net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **extra)
    return with_stem(net, settings.stem, settings.stem_padding) if is_resnet else net


def with_stem(net: nn.Module, stem: str, padding: int = 1) -> nn.Module:
    """Return timm's ResNet, with a first layer for small images if ``stem`` is ``"3x3"``.

    ``padding`` is how many zeros that layer puts around them.
    """
    if stem == "3x3":
        channels = next(m for m in net.modules() if isinstance(m, nn.Conv2d)).in_channels
        width: int = net.get_submodule("bn1").num_features  # type: ignore[assignment]
        net.conv1 = first_layer(channels, width, 3, padding=padding)
        net.maxpool = nn.Identity()
    return net


def first_layer(
    channels: int, width: int, kernel: int, stride: int = 1, padding: int | None = None
) -> nn.Conv2d:
    """Return a ResNet's first convolution, initialised as timm does."""
    zeros = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(channels, width, kernel, stride, zeros, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def is_convolutional(module: nn.Module) -> bool:
    """Return whether channels-last storage pays off (for a patch embedding it does not)."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return any(m.kernel_size != m.stride and max(m.kernel_size) > 1 for m in convolutions)
