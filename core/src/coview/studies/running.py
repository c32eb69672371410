"""Run a study: every run in a process of its own, several at once, resumable after a kill."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from coview.errors import CoviewError
from coview.studies.jobs import Asked, Job, Order, jobs, order, unique
from coview.studies.study import Study

Tell = Callable[[str], None]


def run(
    study: Study,
    asked: Asked,
    processes: int,
    budget: float | None = None,
    tell: Tell = print,
    look: Callable[[Sequence[Job]], None] | None = None,
) -> list[Job]:
    """Do the runs that are not done yet; return all, done or not.

    Args:
        study: the study.
        asked: how it is run.
        processes: runs at once; each gets its share of the processor's threads.
        budget: seconds after which no new run begins, so that a study can be done in
            pieces; None: all of it. Seeds are done one after the other: what is done when
            the budget is over can be compared.
        tell: is told each run as it ends.
        look: is given all jobs, done or not, before the first run and after each.

    Raises:
        RequestError: a variant is wrong; nothing was run.
        CoviewError: runs failed. The others were done, and are kept.
    """
    wanted = jobs(study, asked)
    every = unique(wanted)
    missing = [job for job in every if job.result is None]
    if len(missing) < len(every):
        tell(f"{len(every) - len(missing)} of {len(every)} runs are done already.")
    if look is not None:
        look(wanted)
    failed = []
    clock = Clock(len(missing), budget)
    for job, error in _each(missing, study, asked, processes, clock):
        if error:
            failed.append(f"Variant {job.variant!r}, seed {job.seed}: {error}")
            tell(failed[-1])
        else:
            tell(f"{job.variant}, seed {job.seed}: {_values(study, job)}{clock.left()}")
        if look is not None:
            look(wanted)
    if failed:
        raise CoviewError(
            f"{len(failed)} of {len(missing)} runs failed; the others are kept. {failed[0]}"
        )
    return wanted


class Clock:
    """Knows how long runs take, and when no new one may begin."""

    def __init__(self, count: int, budget: float | None) -> None:
        self.count, self.budget = count, budget
        self.started, self.ended = time.monotonic(), 0

    @property
    def over(self) -> bool:
        """Whether no new run may begin."""
        return self.budget is not None and time.monotonic() - self.started >= self.budget

    def left(self) -> str:
        """Return how many runs are left, and about how long they take."""
        left = self.count - self.ended
        if not left:
            return ""
        seconds = (time.monotonic() - self.started) / self.ended * left
        runs = "run" if left == 1 else "runs"
        return f"  ({left} {runs} left, about {max(1, round(seconds / 60))} min)"


def _each(
    missing: Sequence[Job], study: Study, asked: Asked, processes: int, clock: Clock
) -> Iterator[tuple[Job, str]]:
    """Yield every run as it ends, and what went wrong."""
    waiting, running = list(missing), dict[Future[str], Job]()
    with ThreadPoolExecutor(processes) as pool:
        while running or (waiting and not clock.over):
            while waiting and len(running) < processes and not clock.over:
                job = waiting.pop(0)
                running[pool.submit(_in_process, order(job, study, asked), processes)] = job
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                clock.ended += 1
                yield running.pop(future), future.result()


def _in_process(told: Order, processes: int) -> str:
    """Do a run in a process; return what went wrong, or nothing."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    done = subprocess.run(
        [sys.executable, "-m", "coview.studies.one"],
        input=pickle.dumps(told),
        env={"OMP_NUM_THREADS": threads, **os.environ},
        capture_output=True,
    )
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"its process ended with status {done.returncode}"


def _values(study: Study, job: Job) -> str:
    found = job.result or {"values": {}, "seconds": 0}
    said = [
        f"{study.measure[key].title} {study.measure[key].said(value)}"
        for key, value in found["values"].items()
    ]
    return f"{', '.join(said)} ({found['seconds']:.0f} s)"
