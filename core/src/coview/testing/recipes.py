"""Helpers for tests that compare a recipe's numbers with the paper's."""

from __future__ import annotations

from typing import Any

from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import find_recipe
from coview.recipes.resolve import Resolved


def resolved(method: str, preset: str = "none") -> Resolved:
    """Return an installed method's recipe with a preset applied and all settings resolved.

    Raises:
        RequestError: the recipe or the preset is wrong; it lists every problem.
    """
    return configure(find_recipe(method), None, Changes(preset=preset), "test")


def has(found: Resolved, **expected: Any) -> None:
    """Assert settings, ``table__key=value``, and names, ``table="name"`` or ``"name,name"``.

    Raises:
        AssertionError: at the first difference; the message names it.
    """
    for path, value in expected.items():
        table, _, key = path.partition("__")
        if not key:
            seen: Any = ",".join(part.name for part in found.parts[table])
        elif table in ("training", "data"):
            seen = getattr(getattr(found, table), key)
        else:
            seen = getattr(found.part(table).settings, key)
        assert seen == value, f"{path} is {seen!r}, not {value!r}"
