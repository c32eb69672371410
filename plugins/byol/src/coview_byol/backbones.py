"""ResNets without batch statistics.

Group normalisation with weight standardisation (Richemond et al. 2020,
arXiv:2010.10241): the rows of a batch are independent up to the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
from timm.layers import GroupNorm, StdConv2d
from torch import nn

from coview.nn.backbones import BackboneSettings, resnet10_quarter

GROUPS = 16
QUARTER_GROUPS = 4
"""Of a network with a quarter of the channels, so that a group has as many."""


def resnet18(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """ResNet-18: (B, C, H, W) -> (B, 512)."""
    return _build("resnet18", channels, settings)


def resnet50(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """ResNet-50: (B, C, H, W) -> (B, 2048)."""
    return _build("resnet50", channels, settings)


def resnet10_quarter_standardized(
    channels: int, image_size: int, settings: BackboneSettings
) -> nn.Module:
    """ResNet-10 of a quarter width: (B, C, H, W) -> (B, 128)."""
    network = resnet10_quarter(channels, image_size, settings)
    _renorm(network, partial(nn.GroupNorm, QUARTER_GROUPS))
    _standardize(network)
    return network


def resnet10_quarter_bare(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """ResNet-10 of a quarter width without any normalisation, which fails; for comparison."""
    network = resnet10_quarter(channels, image_size, settings)
    _renorm(network, nn.Identity)
    return network


def _renorm(module: nn.Module, make: Callable[[int], nn.Module]) -> None:
    """Put what ``make`` returns for a width in the place of every batch norm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, make(child.num_features))
        else:
            _renorm(child, make)


def _build(name: str, channels: int, settings: BackboneSettings) -> nn.Module:
    """Return timm's network and parameter names, with its norms and convolutions replaced."""
    network: nn.Module = timm.create_model(
        name,
        num_classes=0,
        in_chans=channels,
        norm_layer=partial(GroupNorm, num_groups=GROUPS),
        zero_init_last=settings.zero_init_last,
        drop_path_rate=settings.drop_path,
    )
    if settings.stem == "3x3":
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=settings.stem_padding, bias=False)
        network.maxpool = nn.Identity()
    _standardize(network)
    return network


def _standardize(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, _standardized(child))
        else:
            _standardize(child)


def _standardized(old: Any) -> nn.Module:
    new = StdConv2d(
        old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False
    )
    new.weight = old.weight
    return new
