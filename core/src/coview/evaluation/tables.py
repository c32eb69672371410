"""A comparison of runs as text for a terminal, or as Markdown."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from coview.evaluation.comparison import ALWAYS, MEASURES, Comparison, Group, Line, Settings, worth
from coview.terminal import shown

APART = (
    "Accuracies by another protocol, or on other data or test images, stand in a table of their "
    "own: they cannot be compared."
)


ABSENT = "-"
"""Stands for a setting that a run does not have."""
GAP = 2
"""Spaces between columns."""
NAME = 24
"""Characters of a run's name that have their place, however many settings there are."""


@attrs.frozen
class Column:
    """A column: its title, a cell for each line, and whether the cells may be wrapped."""

    title: str
    cells: tuple[str, ...]
    wraps: bool = False

    @property
    def width(self) -> int:
        """Characters of its widest cell."""
        return max(map(len, (self.title, *self.cells)))


def text(found: Comparison, width: int) -> str:
    """Return a comparison for a terminal of ``width`` columns."""
    file = StringIO()
    console = Console(file=file, width=width, color_system=None, soft_wrap=False)

    def say(line: Any) -> None:
        console.print(line, markup=False, highlight=False, emoji=False)

    for sentence in _above(found):
        say(sentence)
    for group in found.groups:
        say(f"\n{group.title}")
        columns = _fitting(group, found, width)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        for column in columns:
            table.add_column(column.title, no_wrap=not column.wraps, overflow="fold")
        for cells in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*cells)
        say(table)
        if sentence := worth(group):
            say(sentence)
    for sentence in _below(found):
        say(f"\n{sentence}")
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def markdown(found: Comparison) -> str:
    """Return a comparison as Markdown: a table for each group."""
    parts = [" ".join(_above(found))]
    for group in found.groups:
        columns = [*_measured(group), *_settings(group, found), _runs(group, found)]
        head = [column.title for column in columns]
        lines = [head, ["---"] * len(head), *zip(*(c.cells for c in columns), strict=True)]
        rows = (f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)
        parts += [f"**{_escaped(group.title)}**", "\n".join(rows), worth(group)]
    return "\n\n".join(filter(None, [*parts, *_below(found)]))


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _above(found: Comparison) -> Iterator[str]:
    """Yield sentences on what all runs have in common."""
    several = "All runs" if _count(found) > 1 else "The run"
    told = [f"{_short(name)} {value}" for name, value in _told(found.shared)]
    if told:
        yield f"{several}: {', '.join(told)}."
    if folder := _folder(found):
        yield f"Runs are in {folder}{os.sep}."


def _told(shared: Settings) -> Iterator[tuple[str, Any]]:
    first = ["method", "trained on", "training images"]
    for name in dict.fromkeys((*first, *ALWAYS)):
        if shared.get(name) not in (None, "none"):
            yield name, shared[name]


def _below(found: Comparison) -> Iterator[str]:
    if len(found.groups) > 1:
        yield APART
    if any(len(line.runs) > 1 for group in found.groups for line in group.lines):
        yield "Runs that differ by their seed alone are one line; --each shows every run."
    for run, epochs in found.outdated.items():
        times = " and ".join(f"{number:g}" for number in epochs)
        yield (
            f"What was measured of {run} after {times} epochs is left out: it was trained further. "
            f"To measure it again: coview evaluate knn {run}"
        )
    for run in found.without:
        yield f"{run} has no evaluations yet. To add one: coview evaluate knn {run}"


def _fitting(group: Group, found: Comparison, width: int) -> list[Column]:
    """Return the columns; too many settings for the width share one, whose lines are wrapped."""
    measured, settings, runs = _measured(group), _settings(group, found), _runs(group, found)
    left = width - sum(column.width + GAP for column in measured)
    needed = sum(column.width + GAP for column in settings)
    if settings and needed + min(runs.width, NAME) > left:
        settings = [Column("settings", _joined(settings), wraps=True)]
        needed = settings[0].width + GAP
    name = min(runs.width, max(NAME, left - needed))
    return [*measured, *settings, Column(runs.title, tuple(_wrapped(c, name) for c in runs.cells))]


def _wrapped(cell: str, width: int) -> str:
    """Break a name after hyphens, or anywhere if need be."""
    return "\n".join(textwrap.wrap(cell, width))


def _joined(columns: Sequence[Column]) -> tuple[str, ...]:
    titles = [column.title for column in columns]
    return tuple(
        ", ".join(f"{t} {cell}" for t, cell in zip(titles, cells, strict=True) if cell != ABSENT)
        for cells in zip(*(column.cells for column in columns), strict=True)
    )


def _measured(group: Group) -> list[Column]:
    first, *others = group.measures
    columns = [_means(group, first)]
    if any(len(line.runs) > 1 for line in group.lines):
        columns.append(Column("seeds", tuple(str(len(line.runs)) for line in group.lines)))
        columns.append(Column("range", tuple(map(_range, group.lines))))
    return columns + [_means(group, name) for name in others]


def _means(group: Group, name: str) -> Column:
    return Column(MEASURES[name], tuple(f"{100 * line.means[name]:.1f} %" for line in group.lines))


def _range(line: Line) -> str:
    if len(line.runs) < 2:
        return ""
    return f"{100 * min(line.shares):.1f} to {100 * max(line.shares):.1f}"


def _settings(group: Group, found: Comparison) -> list[Column]:
    """Return a column for each setting that differs between the lines."""
    titles = _titles(found.differing)
    columns = [
        Column(titles[name], tuple(_cell(line.settings.get(name)) for line in group.lines))
        for name in found.differing
        if name != "seed"
    ]
    if "seed" in found.differing and all(len(line.runs) == 1 for line in group.lines):
        columns.append(Column("seed", tuple(_cell(line.seeds[0]) for line in group.lines)))
    return columns


def _cell(value: Any) -> str:
    return ABSENT if value is None else shown(value)


def _titles(names: Iterable[str]) -> dict[str, str]:
    """Return the shortest titles that tell the settings apart."""
    names = list(names)
    short = [_short(name) for name in names]
    return {
        name: title if short.count(title) == 1 else name
        for name, title in zip(names, short, strict=True)
    }


def _short(name: str) -> str:
    known = {"data.size": "image size", "backbone": "network"}
    return known.get(name, name.rpartition(".")[2].replace("_", " "))


def _runs(group: Group, found: Comparison) -> Column:
    folder = _folder(found)

    def cell(line: Line) -> str:
        if len(line.runs) > 1:
            return f"{len(line.runs)} runs"
        return shown(os.path.relpath(line.runs[0], folder) if folder else line.runs[0])

    return Column("run", tuple(map(cell, group.lines)))


def _count(found: Comparison) -> int:
    return len({run for group in found.groups for line in group.lines for run in line.runs})


def _folder(found: Comparison) -> str:
    """Return the folder that several runs are all in, or an empty text."""
    runs = {run for group in found.groups for line in group.lines for run in line.runs}
    parents = {str(Path(run).parent) for run in runs}
    return parents.pop() if len(parents) == 1 and len(runs) > 1 else ""
