"""Networks without batch normalisation, which would let patches of an image tell each other."""

from __future__ import annotations

import copy

from torch import nn

KINDS = ("none", "layer", "batch")


def normalized(network: nn.Module, kind: str) -> nn.Module:
    """Replace every 2-D batch norm of a network.

    Args:
        network: changed in place; an activation that is part of a norm stays.
        kind: ``"none"``: nothing in its place; ``"layer"``: one mean and
            deviation for all channels and positions of a patch, scale and shift
            for each channel; ``"batch"``: leave them.

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
