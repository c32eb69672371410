"""The errors that coview raises on purpose.

Their class decides the exit status of the command line: 2 for a wrong request,
1 for failed work. Both are shown as sentences, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class CoviewError(Exception):
    """The work failed; the message says why."""


class PluginError(CoviewError):
    """An installed package is at fault; the message names it."""


class RequestError(CoviewError):
    """The request was wrong; holds every problem found, not only the first."""

    def __init__(self, *problems: str) -> None:
        self.problems: Sequence[str] = problems
        super().__init__("\n".join(problems))


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest valid name, else ``""``."""
    # A cut-off of 0.5 still finds 'infonce' -> 'info-nce' and 'simclrv2' -> 'simclr-v2'.
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the message for an unknown name, with the nearest name and all choices."""
    choices = sorted(valid)
    listed = f" Choose from: {', '.join(choices)}." if choices else " None is installed."
    return f"There is no {kind} called {name!r}.{nearest(name, choices)}{listed}"


def named_twice(table: str, names: Sequence[str]) -> list[str]:
    """Return a sentence for each component that a table of a recipe names twice."""
    return [
        f"{table} names {name!r} twice. Settings go by name: for a second one, register it under "
        "another name."
        for name in sorted({name for name in names if names.count(name) > 1})
    ]


def within(layer: str, problem: str) -> str:
    """Return a problem, with the layer that it is of where that is a preset of the recipe."""
    return f"in {layer}: {problem}" if layer.startswith("preset ") else problem
