"""The rules for several processes, in one place, so that no method can get them wrong.

In a single process, every function here returns its argument or does nothing.
"""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from coview.torchrun import restarts

# One process may evaluate for hours; the others are not stuck meanwhile.
PATIENCE = timedelta(days=7)
# Words in the errors of gloo, NCCL and their store when another process is gone or silent.
SIGNS = ("gloo", "nccl", "connection", "timed out")
_patient: Any = None
_control: Any = None
_settled = False


def join(device: str, timeout: float) -> None:
    """Join the processes that torchrun started; do nothing in a single process.

    Args:
        device: the requested device; decides between NCCL and gloo.
        timeout: seconds without a message after which a process ends the run.

    """
    global _patient, _control, _settled
    _settled = False
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(local_rank())
    limit = timedelta(seconds=timeout)
    # NCCL would abort without a message, so gloo, which gives one, times out first.
    own = limit * 1.2 if cuda else limit
    dist.init_process_group("nccl" if cuda else "gloo", timeout=own, **_meeting_place())
    _control = dist.new_group(backend="gloo", timeout=limit)
    _patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    atexit.register(_leave)


def _meeting_place() -> dict[str, Any]:
    """Return arguments by which processes that torchrun started anew meet where nobody was.

    The agent keeps its store, in which new groups would find the addresses of the dead
    (torch 2.14 prefixes the default group's keys alone).
    """
    variables = os.environ
    if not restarts() or variables.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    place = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
    found = dist.TCPStore(*place, is_master=False)  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"coview/{restarts()}", found)  # type: ignore[attr-defined]
    ranks = {"rank": int(variables["RANK"]), "world_size": int(variables["WORLD_SIZE"])}
    return {"store": store, **ranks}


def settle() -> None:
    """Mark that the run has nothing more to exchange, in case the interpreter ends now."""
    global _settled
    _settled = True


def _leave() -> None:
    """End the communication threads: one that outlives the interpreter would abort it.

    Only once everything is exchanged: otherwise this could wait forever.
    """
    if _settled and dist.is_initialized():
        dist.destroy_process_group()


def local_rank() -> int:
    """Return this process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def wait() -> None:
    """Wait for all processes, as long as it takes."""
    if active():
        dist.barrier(group=_patient)


def meet() -> None:
    """Wait for all processes, up to the run's timeout.

    Raises:
        RuntimeError: another process is gone, or did not arrive in time.
    """
    if active():
        dist.barrier(group=_control)


def control_group() -> Any:
    """Return the group for small messages on the host, with the run's timeout."""
    return _control


def largest(value: int) -> int:
    """Return the largest value over all processes, waiting for them as long as it takes."""
    if not active():
        return value
    box = torch.tensor(value)
    dist.all_reduce(box, dist.ReduceOp.MAX, group=_patient)
    return int(box)


def is_loss_of_another(error: BaseException) -> bool:
    """Whether an error means that another process of this run is gone or stuck."""
    if not active() or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(sign in text for sign in SIGNS)


def from_first(value: Any) -> Any:
    """Return the first process's value of a small object (a path, say)."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_patient)
    return box[0]


def everyones(value: Any) -> list[Any]:
    """Return every process's value of a small object, in rank order."""
    if not active():
        return [value]
    box: list[Any] = [None] * world_size()
    dist.all_gather_object(box, value, group=_control)
    return box


def active() -> bool:
    """Whether several processes share this run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if active() else 1


class _Gather(torch.autograd.Function):
    """Forward: the rows of all processes. Backward: the sum of all gradients for the own rows."""

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

    Gradient flows back to the process that each row came from, summed over
    processes. If the loss is the mean over local rows, DDP's average then equals
    the gradient of a single process.
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
