"""Backbones, which map an image (B, C, H, W) to one feature vector (B, D).

A name is either registered by an installed package (group ``coview.backbones``)
or one of timm's. timm's ResNets use torchvision's parameter names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from coview.errors import RequestError, nearest
from coview.registry import Entry, entries, find
from coview.settings import between, gt, one_of, setting

STEMS = ("7x7", "3x3")


@attrs.frozen
class BackboneSettings:
    """Settings of a backbone, beside its name."""

    stem: str = setting(
        "7x7",
        "a ResNet's first layer: 7x7 (stride 2, then max-pooling: ImageNet) or "
        "3x3 (stride 1, no pooling: images of up to 64 pixels)",
        one_of(*STEMS),
    )
    zero_init_last: bool = setting(
        False, "start the last batch norm of every residual block at zero (ResNets)"
    )
    drop_path: float = setting(
        0.0,
        "stochastic depth: probability that the last residual block is skipped in training; "
        "proportionally less for earlier ones",
        between(0, 1),
    )
    patch: int | None = setting(
        None, "patch size in pixels of a vision transformer; none: the backbone's own", gt(0)
    )


Factory = Callable[[int, int, BackboneSettings], nn.Module]
"""(channels, image size, settings) -> module with an attribute ``num_features``."""


@attrs.frozen(eq=False)
class BackboneSpec:
    """A backbone that can be built as often as an encoder needs one."""

    name: str
    factory: Factory
    settings: BackboneSettings = BackboneSettings()

    def build(self, channels: int, image_size: int) -> nn.Module:
        """Return a new backbone with fresh weights; ``num_features`` is its width D."""
        return self.factory(channels, image_size, self.settings)


def find_backbone(name: str) -> tuple[Factory, Entry | None]:
    """Return a backbone's factory and, if a package registered it, its entry.

    Raises:
        RequestError: neither a package nor timm knows the name.
    """
    if any(entry.name == name.rpartition(":")[2] for entry in entries("backbones")):
        entry = find("backbones", name)
        factory: Factory = entry.load()
        return factory, entry
    if not timm.is_model(name):
        known = [entry.name for entry in entries("backbones")] + timm.list_models()
        raise RequestError(
            f"There is no backbone called {name!r}, neither registered nor in timm."
            f"{nearest(name, known)}"
        )

    def build(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
        return _timm(name, channels, image_size, settings)

    return build, None


def from_module(module: nn.Module, channels: int, image_size: int) -> BackboneSpec:
    """Return a spec of an existing module (copied for every build, with its weights)."""
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
    return with_stem(net, settings.stem)


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
    return with_stem(net, settings.stem) if is_resnet else net


def with_stem(net: nn.Module, stem: str) -> nn.Module:
    """Return timm's ResNet, with a first layer for small images if ``stem`` is ``"3x3"``."""
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
            f"The backbone {type(module).__name__} must return one vector per image, (B, D), but "
            f"it returned {tuple(features.shape)} for one {channels}x{image_size}x{image_size} "
            "image."
        )
    return features.shape[1]


def is_convolutional(module: nn.Module) -> bool:
    """Return whether channels-last storage pays off (for a patch embedding it does not)."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return any(m.kernel_size != m.stride and max(m.kernel_size) > 1 for m in convolutions)
