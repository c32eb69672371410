"""How two runs differ: in what was asked for, and in what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coview.evaluation.comparison import settings_of
from coview_report.reading import read

Pairs = dict[str, tuple[Any, Any]]
RESULTS = ("knn_top1", "knn_top5", "online_knn_top1", "untrained_knn_top1", "loss")


def difference(first: Path, second: Path) -> tuple[Pairs, Pairs]:
    """Return the settings in which two runs differ, and their results, as pairs by name.

    Raises:
        RequestError: there is no such run.
    """
    runs = [read(first), read(second)]
    mine, other = (settings_of(run.path) for run in runs)
    names = [name for name in dict.fromkeys((*mine, *other)) if name != "contents"]
    settings = {n: (mine.get(n), other.get(n)) for n in names if mine.get(n) != other.get(n)}
    measured = {name: tuple(run.value(name) for run in runs) for name in RESULTS}
    results: Pairs = {name: (a, b) for name, (a, b) in measured.items() if (a, b) != (None, None)}
    results["seconds"] = (runs[0].seconds, runs[1].seconds)
    return settings, results
