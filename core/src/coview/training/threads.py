"""Threads that compute on a processor: how many, and whether other programs keep them waiting.

Torch's threads wait for each other after every operation. Where other programs keep the cores
busy, each operation therefore waits for the thread that gets a core last, and one thread alone
can be many times faster. The number of threads also decides in which order sums are formed, so
it is recorded with a run, repeated by a resumed one, and never changed without being asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import torch

from coview.distributed import active, from_first

TASKS = Path("/proc/self/task")
"""Linux's folder of this process's threads."""
BUSY = 0.2
"""Share of waiting from which fewer threads are worth a try."""


@contextmanager
def using(threads: int) -> Iterator[None]:
    """Compute with so many threads inside the context; 0: with as many as outside."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chosen(threads: int, device: torch.device) -> int:
    """Return the number of threads to record with a run.

    Args:
        threads: what was asked for; 0: nothing.
        device: on a GPU, where no result depends on it, 0 stays.
    """
    if threads or device.type != "cpu":
        return threads
    if not active():
        return torch.get_num_threads()
    first: int = from_first(torch.get_num_threads())
    torch.set_num_threads(first)  # the same on all machines, or their sums would differ
    return first


@attrs.frozen
class Use:
    """Seconds that this process's threads computed, and that they could have but got no core."""

    computed: float
    waited: float

    def since(self, before: Use) -> float:
        """Return the share of waiting since ``before``, from 0 to 1."""
        waited = max(0.0, self.waited - before.waited)
        both = max(0.0, self.computed - before.computed) + waited
        return waited / both if both else 0.0


def use() -> Use | None:
    """Return how this process's threads spent their time so far; None: not known here."""
    computed = waited = 0
    try:
        folders = list(TASKS.iterdir())
    except OSError:
        return None  # not Linux
    for folder in folders:
        with suppress(OSError, ValueError):  # a thread that has ended
            running, ready, _ = (folder / "schedstat").read_text().split()
            computed, waited = computed + int(running), waited + int(ready)
    # In a kernel that does not count it, all are 0.
    return Use(computed / 1e9, waited / 1e9) if computed else None


def crowded(before: Use | None, device: torch.device) -> str:
    """Return what is so if several threads waited long for a core since ``before``, or nothing."""
    now, threads = use(), torch.get_num_threads()
    if before is None or now is None or device.type != "cpu" or threads < 2:
        return ""
    if (share := now.since(before)) < BUSY:
        return ""
    return (
        f"other programs keep the processor busy: the {threads} threads of this run spend "
        f"{100 * share:.0f} % of their time waiting for a core"
    )
