"""Heads: the small networks that follow a backbone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

NORMS = ("none", "batch", "layer", "group")
OUTPUT_NORMS = ("none", "batch", "batch-no-shift", "batch-plain", "layer", "group")
GROUPS = 16


def norm(kind: str, width: int) -> nn.Module:
    """Return a normalisation of (N, width).

    ``batch`` has scale and shift; ``batch-no-shift`` keeps its shift at zero and
    does not train it (SimCLR's last layer); ``batch-plain`` has neither. ``group``
    normalises 16 groups of each row's channels separately.
    """
    if kind == "batch":
        return nn.BatchNorm1d(width)
    if kind == "batch-plain":
        return nn.BatchNorm1d(width, affine=False)
    if kind == "batch-no-shift":
        layer = nn.BatchNorm1d(width)
        layer.bias.requires_grad_(False)
        return layer
    if kind == "layer":
        return nn.LayerNorm(width)
    if kind == "group":
        return nn.GroupNorm(math.gcd(GROUPS, width), width)
    return nn.Identity()


class StandardizedLinear(nn.Linear):
    """A linear layer with weight rows of mean 0, deviation 1 (Qiao et al., arXiv:1903.10520)."""

    def forward(self, rows: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        deviation, mean = torch.std_mean(self.weight, dim=1, correction=0, keepdim=True)
        return linear(rows, (self.weight - mean) / (deviation + 1e-5), self.bias)


def mlp(
    inputs: int,
    hidden: int,
    outputs: int,
    layers: int = 2,
    *,
    hidden_norm: str = "batch",
    output_norm: str = "none",
    hidden_bias: bool = True,
    output_bias: bool = True,
    standardized: bool = False,
) -> nn.Sequential:
    """Return ``layers`` linear layers with a norm and ReLU between them.

    Its children are its layers: ``head[0]`` is the first linear layer with its norm
    and ReLU, ``head[-1]`` is the last.

    Args:
        inputs: width of the input, (N, inputs).
        hidden: width between the layers.
        outputs: width of the output, (N, outputs).
        layers: number of linear layers; 1 is a linear head.
        hidden_norm: one of :data:`NORMS`.
        output_norm: one of :data:`OUTPUT_NORMS`.
        hidden_bias, output_bias: whether the linear layers have a bias.
        standardized: whether the linear layers' weights are standardised.
    """
    layer = StandardizedLinear if standardized else nn.Linear
    blocks: list[nn.Module] = []
    width = inputs
    for _ in range(layers - 1):
        parts = [
            layer(width, hidden, bias=hidden_bias),
            norm(hidden_norm, hidden),
            nn.ReLU(inplace=True),
        ]
        blocks.append(nn.Sequential(*_without_identities(parts)))
        width = hidden
    last = [layer(width, outputs, bias=output_bias), norm(output_norm, outputs)]
    blocks.append(nn.Sequential(*_without_identities(last)))
    return nn.Sequential(*blocks)


def _without_identities(parts: list[nn.Module]) -> list[nn.Module]:
    return [part for part in parts if not isinstance(part, nn.Identity)]
