"""Backbones: an image (B, C, H, W) to one feature vector (B, D).

A name is one that an installed package registered (group ``coview.backbones``)
or any of timm's. timm's ResNets carry torchvision's parameter names.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from coview.errors import RequestError
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
    """timm's models, by their names: what a backbone is that no package registered."""

    title = "timm"

    @staticmethod
    def find(name: str) -> Factory | None:
        """Return what builds a backbone; None: timm has no such model."""
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
        RequestError: no package and not timm knows the name.
    """
    entry = find("backbones", name)
    factory: Factory = entry.load()
    return factory, entry


def from_module(module: nn.Module, channels: int, image_size: int) -> BackboneSpec:
    """Make a spec of a ready module (copied for every build, weights kept)."""
    import copy

    width = getattr(module, "num_features", None)
    if width is None:
        width = _probe(module, channels, image_size)

    def build(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
        built = copy.deepcopy(module)
        built.num_features = width  # type: ignore[assignment]
        return built

    return BackboneSpec(type(module).__name__, build)


def resnet10_quarter(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """A ResNet-10 of a quarter of ResNet-18's width: 0.3 M parameters, 128 features.

    Small enough for tests and demonstrations on two cores; no paper's network.
    """
    # timm fixes a plain stem at 64 channels; its deep stem is as wide as asked
    # for, and the one convolution that replaces it takes over that width.
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
    return with_stem(net, settings.stem)


def _timm(name: str, channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    extra: dict[str, Any] = {}
    is_resnet = name.startswith(("resnet", "wide_resnet", "resnext", "test_resnet"))
    if is_resnet:
        extra["zero_init_last"] = settings.zero_init_last
    if name.startswith(("vit", "deit", "test_vit")):
        # Other sizes than the first are met by interpolating the positions.
        extra |= {"img_size": image_size, "dynamic_img_size": True}
        if settings.patch:
            extra["patch_size"] = settings.patch
    if settings.drop_path:
        extra["drop_path_rate"] = settings.drop_path
    net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **extra)
    return with_stem(net, settings.stem) if is_resnet else net


def with_stem(net: nn.Module, stem: str) -> nn.Module:
    """Return timm's ResNet with its first layer for small images (``"3x3"``), else as it is."""
    if stem == "3x3":
        channels = next(m for m in net.modules() if isinstance(m, nn.Conv2d)).in_channels
        net.conv1 = first_layer(channels, net.get_submodule("bn1").num_features, 3)  # type: ignore[arg-type]
        net.maxpool = nn.Identity()
    return net


def first_layer(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a ResNet's first convolution, initialised as timm does."""
    layer = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


@torch.no_grad()
def _probe(module: nn.Module, channels: int, image_size: int) -> int:
    was_training = module.training
    features: Tensor = module.eval()(torch.zeros(1, channels, image_size, image_size))
    module.train(was_training)
    if features.ndim != 2:
        raise RequestError(
            f"The backbone {type(module).__name__} must give one vector an image, (B, D); it "
            f"gave {tuple(features.shape)} for one {channels}x{image_size}x{image_size} image."
        )
    return features.shape[1]


def is_convolutional(module: nn.Module) -> bool:
    """Whether it is worth storing its images channels last (a patch embedding is not)."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return any(m.kernel_size != m.stride and max(m.kernel_size) > 1 for m in convolutions)
