"""What a comparison leaves: its numbers as JSON, and a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs

from coview.files import write_json
from coview.studies.jobs import Job
from coview_report.comparing import Entrant, Wanted
from coview_report.page import comparison_page, write
from coview_report.reading import RunFiles, read
from coview_report.standing import Standing, document, standing

LONGEST = 80
"""Characters of a file's name."""


@attrs.frozen(kw_only=True)
class Ended:
    """A comparison that came to its end.

    Attributes:
        title: what was compared, in a line.
        standing: how the methods stand.
        document: all of it as plain values.
        page: the file to open.
        best: a run of the best method.
    """

    title: str
    standing: Standing
    document: dict[str, Any]
    page: Path
    best: Path


def finish(wanted: Wanted, found: Sequence[Entrant], jobs: Sequence[Job]) -> Ended:
    """Write the numbers and the page of a comparison whose runs are done.

    Raises:
        CoviewError: the files cannot be written.
    """
    stood = standing(found, jobs, wanted.asked.seeds)
    runs = {(job.variant, job.seed): read(job.folder) for job in jobs if job.seed in stood.seeds}
    methods = [
        mean_over_seeds([runs[place.name, seed] for seed in stood.seeds], place.name)
        for place in stood.places
    ]
    stood = attrs.evolve(stood, raw_pixels=methods[0].value("raw_pixels_knn_top1"))
    title = _title(wanted, found, stood)
    told = document(stood, str(wanted.compute), str(wanted.common.data))
    stem = wanted.asked.out / _stem(wanted)
    write_json(stem.with_name(stem.name + ".json"), told)
    page = stem.with_name(stem.name + ".html")
    write(page, comparison_page(methods, stood, title))
    best = next(job.folder for job in jobs if job.variant == stood.best.name)
    return Ended(title=title, standing=stood, document=told, page=page, best=best)


def _title(wanted: Wanted, found: Sequence[Entrant], stood: Standing) -> str:
    network = "own networks" if wanted.own_networks else found[0].network
    count = len(stood.seeds)
    return (
        f"{network}, {wanted.common.data}, {wanted.compute}, "
        f"{count} seed{'' if count == 1 else 's'}"
    )


def _stem(wanted: Wanted) -> str:
    names = " ".join([*wanted.methods, *wanted.peers])
    said = f"{Path(str(wanted.common.data)).name} {wanted.compute} {names}"
    return re.sub(r"[^a-zA-Z0-9]+", "-", said).strip("-").lower()[:LONGEST]


def mean_over_seeds(runs: Sequence[RunFiles], name: str) -> RunFiles:
    """Return runs of one method as one, whose readings are the means over its seeds."""
    readings: dict[float, dict[str, list[float]]] = {}
    for run in runs:
        for entry in run.metrics:
            here = readings.setdefault(float(entry["step"]), {})
            for metric, value in entry.items():
                if isinstance(value, (int, float)):
                    here.setdefault(metric, []).append(value)
    metrics = [
        {metric: fmean(values) for metric, values in here.items()}
        for _, here in sorted(readings.items())
    ]
    return attrs.evolve(runs[0], name=name, metrics=metrics)
