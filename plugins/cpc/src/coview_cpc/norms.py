"""Removing batch normalisation, whose statistics would reveal patches of the same image."""

from __future__ import annotations

import copy

from torch import nn

KINDS = ("none", "layer", "batch")


def normalized(network: nn.Module, kind: str) -> nn.Module:
    """Replace every 2-D batch norm of a network.

    Args:
        network: changed in place; activations that are part of a norm are kept.
        kind: ``"none"``: remove the norms; ``"layer"``: use one mean and deviation
            for all channels and positions of a patch, with scale and shift for each
            channel; ``"batch"``: leave the norms unchanged.

    Returns:
        The network.
    """
    if kind == "batch":
        return network
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, _replacement(child, kind))
        else:
            normalized(child, kind)
    return network


def _replacement(norm: nn.BatchNorm2d, kind: str) -> nn.Module:
    parts: list[nn.Module] = []
    if kind == "layer":
        layer = nn.GroupNorm(1, norm.num_features)
        # A norm that starts at zero keeps its residual branch silent at first.
        layer.weight.data.copy_(norm.weight.data)
        parts.append(layer)
    activation = getattr(norm, "act", None)
    if activation is not None and not isinstance(activation, nn.Identity):
        parts.append(copy.deepcopy(activation))
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
