"""Balanced soft assignment."""

from __future__ import annotations

import torch
from torch import Tensor

from coview.training.distributed import gather


@torch.no_grad()
def sinkhorn(
    scores: Tensor, support: Tensor | None = None, epsilon: float = 0.05, iterations: int = 3
) -> Tensor:
    """Return codes: assignments of the rows that use the columns about equally.

    Sinkhorn-Knopp's scaling of exp(scores / epsilon) to equal column sums and
    row sums of one (Caron et al. 2020, section 3.1; Cuturi 2013), in the
    logarithm, where no score can overflow. Rows sum to one; the columns'
    masses are equal only in the limit.

    Args:
        scores: (N, K), this process's rows; columns are balanced over the rows
            of all processes. Only K numbers a process are exchanged.
        support: (M, K), rows that take part in the balance and get no code, the
            same on every process and counted once.
        epsilon: the weight of the entropy; high values give uniform codes.
        iterations: scalings of columns and rows.

    Returns:
        (N, K), float32 or better; without gradient.
    """
    rows = _logits(scores, epsilon)
    others = None if support is None else _logits(support, epsilon)
    for _ in range(iterations):
        mass = gather(rows.logsumexp(dim=0, keepdim=True)).logsumexp(dim=0)
        if others is not None:
            mass = torch.logaddexp(mass, others.logsumexp(dim=0))
            others = (others - mass).log_softmax(dim=1)
        rows = (rows - mass).log_softmax(dim=1)
    return rows.exp()


def _logits(scores: Tensor, epsilon: float) -> Tensor:
    precise = scores if scores.dtype == torch.float64 else scores.float()
    return precise / epsilon
