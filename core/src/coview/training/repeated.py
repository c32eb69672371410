"""A run's directory in place of a method's name: its recipe, data and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from coview.data.sources.arrays import OBJECT
from coview.errors import RequestError
from coview.evaluation.results import facts_of
from coview.recipes.recipe import Recipe, method_names


@attrs.frozen
class Repeated:
    """What is asked for, with a run's own values where nothing was given.

    Attributes:
        method: a method's name, a TOML file, or a recipe.
        data: as users name it.
        seed: random seed.
    """

    method: str | Path | Recipe
    data: Any
    seed: int


def repeated(method: str | Path | Recipe, data: Any, seed: int | None) -> Repeated:
    """Return what is asked for; the name of a method is never a run, ``./NAME`` is.

    Args:
        method: a method's name, a TOML file, a recipe, or a run's directory.
        data: data; None: the run's own, or digits.
        seed: random seed; None: the run's own, or 0.

    Raises:
        RequestError: the run's own data were a Python object.
    """
    path = None if isinstance(method, Recipe) else Path(method)
    if path is None or not (path / "run.json").is_file() or str(method) in method_names():
        return Repeated(method, "digits" if data is None else data, seed or 0)
    facts = facts_of(path)
    if data is None and facts["data"]["name"] == OBJECT:
        raise RequestError("This run's data were a Python object. Name other data: --data.")
    return Repeated(
        path / "recipe.toml",
        facts["data"]["name"] if data is None else data,
        facts["seed"] if seed is None else seed,
    )
