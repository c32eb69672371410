"""Comparing several processes under gloo, each with a part of the batch, with a single one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from coview.method.joining import share
from coview.testing.errors import ConformanceError
from coview.testing.evidence import told
from coview.testing.subject import Subject

STEPS = 3
TOLERANCE = 1e-5
TIMEOUT = timedelta(seconds=120)
GRADIENT = "gradient of "
State = dict[str, Tensor]


def train_together(
    subjects: Sequence[Subject], processes: int = 2
) -> list[list[State | Exception]]:
    """Train every subject three steps in real processes that share the batch.

    Returns:
        For each subject and process, the result of :func:`train_part`, or the error
        that it ended with.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_work, args=(list(subjects), processes, folder), nprocs=processes)
        return [
            [_loaded(Path(folder) / f"{number}-{rank}.pt") for rank in range(processes)]
            for number in range(len(subjects))
        ]


def train_part(subject: Subject, rank: int = 0, processes: int = 1) -> State:
    """Train on this process's rows, in float64.

    Returns:
        The first step's gradients, averaged over processes, as ``gradient of NAME``,
        and the method's final state.
    """
    built = subject.build(processes, double=True)
    kept: State = {}
    for number in range(STEPS):
        batch, step = subject.batch(number), subject.step(number)
        built.optimizer.zero_grad(set_to_none=True)
        built.backward(built.loss(share(batch, rank, processes), step), step)
        gradients = averaged(built.method, processes)
        if number == 0:
            kept = {GRADIENT + name: value.clone() for name, value in gradients.items()}
        built.update(step)
    return kept | built.state()


def compare(one: State, several: Sequence[State | Exception], groups: bool) -> None:
    """Demand that every process has the same result as a single one.

    Args:
        one: the result of :func:`train_part` of a single process.
        several: the results of several processes.
        groups: whether batch norm uses groups within a process, which make its
            statistics differ between processes.

    Raises:
        ConformanceError: at the first difference; the message names it.
    """
    for rank, part in enumerate(several):
        if isinstance(part, Exception):
            notes = "; ".join(["", *getattr(part, "__notes__", ())])
            raise ConformanceError(f"process {rank} failed: {type(part).__name__}: {part}{notes}")
        for key in sorted(one.keys() ^ part.keys()):
            raise ConformanceError(f"{key} does not exist on both one and {len(several)} processes")
        for key, value in one.items():
            if groups and ("running_" in key or "num_batches" in key):
                continue
            error = difference(value, part[key])
            if not error < TOLERANCE:
                raise ConformanceError(
                    f"{key} on process {rank} of {len(several)} differs from a single process's "
                    f"by {error:.2g} of its largest value",
                    told((key, value, part[key]), "one process", f"process {rank}", TOLERANCE),
                )


def difference(expected: Tensor, seen: Tensor) -> float:
    """Return the largest difference, relative to the largest expected value."""
    if expected.shape != seen.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    wide = expected.double()
    return float((seen.double() - wide).abs().max() / wide.abs().max().clamp_min(1e-6))


def in_groups(subject: Subject) -> bool:
    """Return whether a method normalises groups of the batch, each within a process."""
    return getattr(subject.resolved.part("encoder").settings, "norm_groups", 1) > 1


def averaged(method: nn.Module, processes: int) -> Mapping[str, Tensor]:
    """Average the gradients over processes, in place; return them by parameter name."""
    found = {}
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            if processes > 1:
                dist.all_reduce(parameter.grad)
                parameter.grad /= processes
            found[name] = parameter.grad
    return found


def _work(rank: int, subjects: list[Subject], processes: int, folder: str) -> None:
    """Run one of the processes, and save each subject's result."""
    torch.set_num_threads(1)
    for number, subject in enumerate(subjects):
        # A separate process group for each subject, so that one failure does not hide others.
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/{number}-meet",
            rank=rank,
            world_size=processes,
            timeout=TIMEOUT,
        )
        result: Any
        try:
            result = train_part(subject, rank, processes)
            dist.barrier()
        except Exception as error:
            result = [type(error).__name__, str(error), list(getattr(error, "__notes__", ()))]
        torch.save(result, f"{folder}/{number}-{rank}.pt")
        dist.destroy_process_group()


def _loaded(path: Path) -> State | Exception:
    result = torch.load(path, weights_only=True)
    if isinstance(result, dict):
        return result
    name, text, notes = result
    failed = RuntimeError(f"{name}: {text}")
    for note in notes:
        failed.add_note(note)
    return failed
