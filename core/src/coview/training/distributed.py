"""The rules for several processes, in one place, so that no method can get them wrong.

Everything here is the identity in a single process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def active() -> bool:
    """Whether several processes share this run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if active() else 1


class _Gather(torch.autograd.Function):
    """Forward: everyone's rows. Backward: the sum of everyone's gradient for the own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather(rows: Tensor) -> Tensor:
    """Return every process's rows in rank order: (N, ...) -> (world x N, ...).

    Gradient flows back to the process each row came from, summed over
    processes; with a loss that is the mean over local rows, DDP's average is
    then the single process's gradient.
    """
    if not active():
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a tensor over processes, without gradient."""
    if not active():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()
