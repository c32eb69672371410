"""Observers that carry elsewhere what a run logs; the one that writes CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coview.files import replacing
from coview.hookspecs import hookimpl
from coview.training.distributed import is_first

Entry = dict[str, Any]


def flat(entry: Mapping[str, Any], prefix: str = "") -> Entry:
    """Return an entry of ``metrics.jsonl`` with nested names joined.

    >>> flat({"step": 3, "knn": {"top1": 0.5, "k": 20}})
    {'step': 3, 'knn.top1': 0.5, 'knn.k': 20}
    """
    found: Entry = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


class Logger:
    """Passes on each entry of ``run.metrics`` once, on the first process.

    A run that is resumed has its metrics cut back to the checkpoint's step;
    :meth:`begin` says what of them still has to be passed on.
    """

    def __init__(self) -> None:
        self._passed = 0

    def begin(self, run: Any) -> int:
        """Open what is written to; return how many of the entries so far it has."""
        raise NotImplementedError

    def write(self, run: Any, entries: list[Entry]) -> None:
        """Write flat entries."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what was opened; called once, however the run ends."""

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Open."""
        if is_first():
            self._passed = self.begin(run)
            self._pass_on(run)

    @hookimpl
    def step_finished(self, run: Any) -> None:
        """Pass on what was logged."""
        self._pass_on(run)

    @hookimpl
    def epoch_finished(self, run: Any) -> None:
        """Pass on what was logged."""
        self._pass_on(run)

    @hookimpl
    def run_finished(self, run: Any) -> None:
        """Pass on the rest."""
        self._pass_on(run)

    def _pass_on(self, run: Any) -> None:
        if is_first() and len(run.metrics) > self._passed:
            new = run.metrics[self._passed :]
            self._passed = len(run.metrics)
            self.write(run, [flat(entry) for entry in new])


class CsvObserver(Logger):
    """Writes ``metrics.csv`` into the run: a line an entry, a column a name.

    A name that was not there before makes the file anew, whole or not at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._columns: list[str] = []

    def begin(self, run: Any) -> int:
        """Write what the run has so far, which drops what a resumption cut off."""
        return 0

    def write(self, run: Any, entries: list[Entry]) -> None:
        """Append lines, or write all of them under more columns."""
        path = run.path / "metrics.csv"
        names = list(dict.fromkeys(name for entry in entries for name in entry))
        new = [name for name in names if name not in self._columns]
        if not new:
            _append(path, self._columns, entries)
            return
        self._columns += new
        with replacing(path) as temporary:
            _append(temporary, self._columns, [flat(entry) for entry in run.metrics], head=True)


def _append(path: Path, columns: list[str], entries: list[Entry], head: bool = False) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if head:
            writer.writeheader()
        writer.writerows(entries)
