"""What a run's directory says about it, also while it trains and where files are missing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from coview.errors import CoviewError, RequestError
from coview.evaluation.results import Row, rows

Point = tuple[float, float]
"""An epoch and a value."""


@attrs.frozen(eq=False)
class RunFiles:
    """The files of a run, read once.

    Attributes:
        path: the run's directory.
        name: what it is called beside the other runs of a page.
        facts: ``run.json``.
        recipe: ``recipe.toml``; empty if it is missing or damaged.
        metrics: ``metrics.jsonl``, up to a line that was being written when the run died.
        evaluations: the evaluations after training, the one at its end among them.
        notes: sentences on files that could not be read.
    """

    path: Path
    name: str
    facts: dict[str, Any]
    recipe: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: list[Row]
    notes: tuple[str, ...] = ()

    def points(self, metric: str) -> list[Point]:
        """Return the readings of a metric: (epoch, value)."""
        return [
            (float(entry.get("epoch", entry.get("step", 0))), float(entry[metric]))
            for entry in self.metrics
            if isinstance(entry.get(metric), (int, float))
        ]

    def value(self, metric: str) -> Any:
        """Return the last reading of a metric, of any type; None if there is none."""
        return next((e[metric] for e in reversed(self.metrics) if metric in e), None)

    @property
    def measured(self) -> list[str]:
        """The names of all metrics that are numbers, in the order in which they were logged."""
        return list(
            dict.fromkeys(
                name
                for entry in self.metrics
                for name, value in entry.items()
                if isinstance(value, (int, float)) and name not in ("step", "epoch")
            )
        )

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return bool(self.facts.get("finished"))

    @property
    def seconds(self) -> float | None:
        """Seconds from the start to the end; None: it has not ended, or did not say."""
        began, ended = self.facts.get("started"), self.facts.get("finished")
        if not began or not ended:
            return None
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()

    @property
    def data(self) -> str:
        """The name of the data it was trained on."""
        return str(self.facts.get("data", {}).get("name", "unknown data"))


def read(path: Path, name: str | None = None) -> RunFiles:
    """Read a run.

    Args:
        path: its directory.
        name: what to call it; None: as its directory is called.

    Raises:
        RequestError: there is no run.
    """
    notes: list[str] = []
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"There is no run at {path}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CoviewError(f"{path / 'run.json'} is damaged: {error}.") from error
    try:
        recipe = tomllib.loads((path / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        recipe = {}
        notes.append(f"The recipe cannot be shown: recipe.toml cannot be read ({error}).")
    try:
        evaluations = rows([path]) if recipe else []
    except (CoviewError, KeyError) as error:
        evaluations = []
        notes.append(f"Evaluations cannot be shown: {error}")
    metrics = list(_entries(path / "metrics.jsonl"))
    called = name or path.resolve().name
    return RunFiles(path, called, facts, recipe, metrics, evaluations, tuple(notes))


def read_all(paths: Iterable[Path]) -> list[RunFiles]:
    """Read several runs, each under a name of its own.

    Raises:
        RequestError: a path is no run.
    """
    unique = list(dict.fromkeys(path.resolve() for path in paths))
    last = [path.name for path in unique]
    names = [
        path.name if last.count(path.name) == 1 else f"{path.parent.name}/{path.name}"
        for path in unique
    ]
    if len(set(names)) < len(names):
        names = [str(path) for path in unique]
    return [read(path, name) for path, name in zip(unique, names, strict=True)]


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                return  # the line that was being written when the run died
            if isinstance(entry, dict):
                yield entry
