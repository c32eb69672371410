"""The page: what was read and seen of runs, as one file of HTML."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
from jinja2 import Environment, PackageLoader, StrictUndefined

from coview.errors import CoviewError
from coview.evaluation.comparison import MEASURES, Comparison, compare, settings_of, worth
from coview_report import charts
from coview_report.bundle import program
from coview_report.looking import Looked, Map
from coview_report.provenance import told
from coview_report.reading import RunFiles
from coview_report.standing import Standing, difference, libraries, percents
from coview_report.states import state
from coview_report.summary import Summary, duration, summary

LIMIT = 5_000_000
"""Bytes of a page, of which 0.9 million are the program that draws."""
COMMON = ("loss", "lr", "images_per_second", "grad_norm")
KNN = ("knn_top1", "knn_top5", "online_knn_top1", "raw_pixels_knn_top1", "untrained_knn_top1")


@attrs.frozen
class Figure:
    """A chart with its title and what to know of it; ``key`` finds its specification."""

    key: str
    title: str
    note: str = ""


def page(runs: Sequence[RunFiles], looked: Looked | None = None, live: str = "") -> str:
    """Return the page about one run, or about several beside each other.

    Args:
        runs: one or several.
        looked: of one run, what was computed with its weights.
        live: where the page asks whether there is a newer one; empty: nowhere.
    """
    text = _rendered(runs, looked, live)
    while looked and looked.maps and len(text.encode()) > LIMIT:
        looked = attrs.evolve(looked, maps=tuple(_halved(each) for each in looked.maps))
        text = _rendered(runs, looked, live)
    return text


def comparison_page(methods: Sequence[RunFiles], stood: Standing, title: str) -> str:
    """Return the page about compared methods.

    Args:
        methods: their runs, the best first, each the mean over its seeds.
        stood: how they stand.
        title: what was compared.
    """
    return _rendered(methods, None, "", stood, title)


def _rendered(
    runs: Sequence[RunFiles],
    looked: Looked | None,
    live: str,
    stood: Standing | None = None,
    title: str = "",
) -> str:
    specs: dict[str, Any] = {}
    drawn = _Drawn(specs)
    states = [state(run.path, run.facts) for run in runs]
    parts = {
        "runs": list(zip(runs, states, map(_summed, runs, states), strict=True)),
        "stood": stood,
        "title": title,
        "places": drawn.chart("places", charts.places(stood), "kNN top-1 accuracy")
        if stood
        else None,
        "training": drawn.of(runs, _training(runs)),
        "collapse": drawn.of(runs, _collapse(runs)),
        "knn": drawn.chart("knn", charts.knn(runs), "kNN top-1 accuracy over training"),
        "maps": _maps(drawn, looked),
        "images": [point["image"] for point in looked.maps[0].points]
        if looked and looked.maps
        else [],
        "looked": looked or Looked(),
        "told_apart": charts.told_apart,
        "libraries": libraries,
        "recipe": told(runs[0]) if len(runs) == 1 else None,
        "compared": _compared(runs) if len(runs) > 1 else None,
        "settings": _settings(runs) if len(runs) > 1 else {},
        "names": {str(run.path): run.name for run in runs},
        "command": _command(runs[0]),
        "measures": MEASURES,
        "worth": worth,
        "specs": specs,
        "live": live,
        "program": program() if specs else "",
        "made": datetime.now().astimezone().strftime("%d %B %Y, %H:%M").lstrip("0"),
    }
    environment = Environment(
        loader=PackageLoader("coview_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"when": _when, "percents": percents, "difference": difference}
    environment.filters["duration"] = duration
    return environment.get_template("page.html").render(**parts)


def _command(run: RunFiles) -> str:
    """Return the command of a run as it was typed, without the folder of the program."""
    program, *words = [str(word) for word in run.facts.get("command", ())] or [""]
    return shlex.join([Path(program).name, *words]) if program else ""


def _when(time: str) -> str:
    """Return a time of ``run.json`` as people write it."""
    return time.replace("T", " ").replace("+00:00", " UTC")


def _summed(run: RunFiles, now: str) -> Summary:
    return summary(run, now)


class _Drawn:
    """Collects the specifications of charts under their keys."""

    def __init__(self, specs: dict[str, Any]) -> None:
        self.specs = specs

    def chart(self, key: str, spec: Any, title: str, note: str = "") -> Figure | None:
        """Keep a chart; None if there is nothing to draw."""
        if spec is None:
            return None
        self.specs[key] = spec
        return Figure(key, title, note)

    def of(self, runs: Sequence[RunFiles], asked: Sequence[tuple[Any, ...]]) -> list[Figure]:
        """Draw metrics: (metric, title, note, options)."""
        found = (
            self.chart(metric, charts.curve(runs, metric, title, **options), title, note)
            for metric, title, note, options in asked
        )
        return [figure for figure in found if figure is not None]


def _training(runs: Sequence[RunFiles]) -> list[tuple[Any, ...]]:
    names = {
        "loss": ("Loss", {}),
        "lr": ("Learning rate", {}),
        "images_per_second": ("Images per second", {"form": ".3~s"}),
        "grad_norm": ("Gradient norm", {"log": True}),
    }
    asked: list[tuple[Any, ...]] = [(m, title, "", how) for m, (title, how) in names.items()]
    others = dict.fromkeys(name for run in runs for name in run.measured)
    apart = {*COMMON, *KNN, *charts.COLLAPSE}
    asked += [(n, n.replace("_", " ").capitalize(), "", {}) for n in others if n not in apart]
    return asked


def _collapse(runs: Sequence[RunFiles]) -> list[tuple[Any, ...]]:
    # Prototypes often share few directions, so with assignments these are no sign.
    assigned = any("assignment_information" in run.measured for run in runs)
    found: list[tuple[Any, ...]] = []
    for metric, (title, healthy) in charts.COLLAPSE.items():
        judged = metric == "assignment_information" or not assigned
        bound = healthy.bound if judged else None
        note = f"Healthy: {healthy.healthy}."
        if bound is not None:
            note += f" A run is warned below {bound:g}."
        found.append((metric, title, note, {"bound": bound}))
    return found


def _maps(drawn: _Drawn, looked: Looked | None) -> list[tuple[Figure, Map]]:
    found = []
    for number, each in enumerate(looked.maps if looked else ()):
        # The images are in the page once, whatever the number of maps.
        points = [_point(n, point) for n, point in enumerate(each.points)]
        spec = charts.embedding_map(points, each.classes, f"{each.way} of the embeddings")
        figure = drawn.chart(f"map-{number}", spec, each.way)
        if figure is not None:
            found.append((figure, each))
    return found


def _point(number: int, found: Mapping[str, Any]) -> dict[str, Any]:
    tip = {"image": number, **{key: found[key] for key in ("class", "name") if key in found}}
    kept = {key: found[key] for key in ("x", "y", "class") if key in found}
    return {**kept, "tip": tip}


def _halved(found: Map) -> Map:
    points = found.points[::2]
    return attrs.evolve(found, points=points, shown=len(points))


def _compared(runs: Sequence[RunFiles]) -> Comparison | None:
    rows = [row for run in runs for row in run.evaluations]
    try:
        return compare([run.path for run in runs], rows, each=True)
    except (CoviewError, KeyError, OSError):
        return None  # a run of a version that did not record its settings


def _settings(runs: Sequence[RunFiles]) -> dict[str, dict[str, Any]]:
    try:
        return {run.name: settings_of(run.path) for run in runs}
    except (CoviewError, KeyError, OSError):
        return {run.name: {} for run in runs}


def write(path: Path, text: str) -> None:
    """Write a page, atomically.

    Raises:
        CoviewError: the disk is full or not writable.
    """
    from coview.files import write_text

    write_text(path, text)
