"""The rules for several processes, in one place, so that no method can get them wrong.

Everything here is the identity in a single process.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Measuring on one process may take hours; the others are not stuck meanwhile.
PATIENCE = timedelta(days=7)
_patient: Any = None


def join(device: str = "auto", timeout: float = 600.0) -> None:
    """Join the processes that torchrun started; do nothing in a single process.

    Args:
        device: as asked for; decides between NCCL and gloo.
        timeout: seconds after which a process that hears nothing ends the run.
    """
    global _patient
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout))
    _patient = dist.new_group(backend="gloo", timeout=PATIENCE)


def local_rank() -> int:
    """Return this process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """Whether this process writes files and talks."""
    return rank() == 0


def wait() -> None:
    """Wait for all processes, as long as it takes."""
    if active():
        dist.barrier(group=_patient)


def from_first(value: Any) -> Any:
    """Return the first process's value of a small object (a path, say)."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_patient)
    return box[0]


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
