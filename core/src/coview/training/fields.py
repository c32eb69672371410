"""What a method asks of its data beside images, and whether they have it."""

from __future__ import annotations

import difflib

from coview.components import Component, DataSource, declared
from coview.data.base import ImageData
from coview.errors import CoviewError, RequestError
from coview.recipes.recipe import COMPONENTS
from coview.recipes.resolve import Resolved
from coview.registry import entries


def wanted(resolved: Resolved) -> dict[str, str]:
    """Return the fields that a recipe's components read, with the component that asks first."""
    found: dict[str, str] = {}
    for role in COMPONENTS:
        for part in resolved.parts[role]:
            for name in declared(part.factory, Component, "needs_fields"):
                found.setdefault(name, f"{role} {part.name!r} of package {part.package}")
    return found


def fields_for(resolved: Resolved, data: ImageData) -> tuple[str, ...]:
    """Return the fields that a recipe's components read, and no others.

    Raises:
        RequestError: the data lack one; the message names those who have it.
    """
    asked = wanted(resolved)
    problems = [
        f"{who} needs the field {name!r} of every image, which {data.name} does not have"
        f"{_its_own(data)}.{_near(name, data)}{_elsewhere(name)}"
        for name, who in asked.items()
        if data.train.field(name) is None
    ]
    if problems:
        raise RequestError(*problems)
    return tuple(asked)


def _own(data: ImageData) -> list[str]:
    return [*data.train.fields, *(["labels"] if data.train.labels is not None else [])]


def _its_own(data: ImageData) -> str:
    own = _own(data)
    return f" (it has: {', '.join(own)})" if own else ""


def _near(name: str, data: ImageData) -> str:
    close = difflib.get_close_matches(name, _own(data), n=1, cutoff=0.8)
    return f" If its {close[0]} are meant, call them {name!r}." if close else ""


def _elsewhere(name: str) -> str:
    having = []
    for entry in entries("datasets"):
        try:
            source = entry.load()
        except CoviewError:
            continue  # a package that is broken has nothing to offer
        if name in declared(source, DataSource, "fields"):
            having.append(entry.name)
    having.append(f"list:FILE, from a column {name!r}")
    return f" Data sets that may have it: {', '.join(having)}."
