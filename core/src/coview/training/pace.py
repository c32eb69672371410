"""How long a step takes: measured by doing some, where an equal time is to be divided."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, count, islice

from coview.training.loop import Metrics, one_step
from coview.training.run import Run

ENOUGH = 3.0
"""Seconds of a measurement that counts."""


def step_seconds(run: Run, enough: float = ENOUGH) -> float:
    """Return the seconds of a step, with the loading of its images, from ever more steps.

    Args:
        run: a rehearsed one (:func:`coview.training.start.rehearse`): its weights are
            changed, and nothing is written.
        enough: seconds; steps are doubled until they take as long.
    """
    run.method.train()
    batches = chain.from_iterable(run.batches.epoch(epoch, 0) for epoch in count())
    metrics = Metrics()
    return paced((one_step(run, batch, metrics) for batch in batches), metrics, enough)


def paced(steps: Iterator[object], metrics: Metrics, enough: float) -> float:
    """Return the seconds of a step, from ever more of them.

    Args:
        steps: an endless iterator that does a step for each item.
        metrics: what the steps measure, whose reading waits for the device.
        enough: seconds; steps are doubled until they take as long.
    """
    next(steps)  # compiles, allocates, reads files for the first time
    metrics.read()
    number, seconds = 0, 0.0
    while seconds < enough:
        number = 2 * number or 1
        began = time.perf_counter()
        for _ in islice(steps, number):
            pass
        metrics.read()
        seconds = time.perf_counter() - began
    return seconds / number
