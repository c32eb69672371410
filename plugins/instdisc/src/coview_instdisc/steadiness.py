"""How steadily a run's loss falls: a quantity for studies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def loss_roughness(run: Any) -> float:
    """Return how far the logged loss is from a straight line in the second half of a run."""
    losses = [float(entry["loss"]) for entry in run.metrics if "loss" in entry]
    return roughness(losses[len(losses) // 2 :])


def roughness(values: Sequence[float]) -> float:
    """Return the deviation of values from their straight line, as a share of their mean.

    Fewer than three values are on a line.
    """
    if len(values) < 3:
        return 0.0
    slope, start = statistics.linear_regression(range(len(values)), values)
    missed = [value - (start + slope * place) for place, value in enumerate(values)]
    return statistics.pstdev(missed) / abs(statistics.fmean(values))
