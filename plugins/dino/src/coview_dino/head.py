"""DINO's head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from coview.losses.similarity import unit


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
        return linear(rows, self.length * unit(self.weight))


class DINOHead(nn.Module):
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
        logits: Tensor = self.last(unit(self.mlp(features)))
        return logits
