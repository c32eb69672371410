"""Heads: the small networks that follow a backbone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

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


class UnitRows(nn.Module):
    """A linear layer without bias, with a separate length for each row (weight normalisation).

    Attributes:
        weight: (outputs, inputs), the rows' directions; their length is divided out.
        length: (outputs, 1), the rows' lengths, 1 at the start.
    """

    def __init__(self, inputs: int, outputs: int, *, fixed_length: bool) -> None:
        super().__init__()
        self.weight = nn.Linear(inputs, outputs, bias=False).weight
        self.length = nn.Parameter(torch.ones(outputs, 1), requires_grad=not fixed_length)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        return linear(rows, self.length * normalize(self.weight, dim=-1))


class PrototypeHead(nn.Module):
    """An MLP with GELU, a unit-length bottleneck, then K logits (Caron et al. 2021, appendix C).

    (N, inputs) -> (N, outputs). The paper's MLP has no batch norm. Its weights start
    truncated normal with standard deviation 0.02, its biases at zero.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        bottleneck: int,
        outputs: int,
        layers: int,
        *,
        batch_norm: bool,
        fixed_length: bool,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        width = inputs
        for _ in range(layers - 1):
            parts.append(nn.Linear(width, hidden))
            if batch_norm:
                parts.append(nn.BatchNorm1d(hidden))
            parts.append(nn.GELU())
            width = hidden
        parts.append(nn.Linear(width, bottleneck))
        self.mlp = nn.Sequential(*parts)
        for part in parts:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        self.last = UnitRows(bottleneck, outputs, fixed_length=fixed_length)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits; with fixed lengths they lie in [-1, 1]."""
        logits: Tensor = self.last(normalize(self.mlp(features), dim=-1))
        return logits
