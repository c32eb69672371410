"""What may not change when a run is resumed, unless it is allowed by name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from coview.errors import RequestError, unknown
from coview.recipes.recipe import AFTERWARDS

Differences = dict[str, tuple[Any, Any]]
"""Key -> what it was, and what it is now."""

RECIPE = "recipe"
"""Allows every key of the recipe."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """Compare two identities (:attr:`coview.training.run.Run.identity`), key by key.

    The recipe's settings have keys as ``--set`` has them: ``loss.temperature``.
    """
    old, new = _flat(before), _flat(now)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    }


def refuse_others(found: Differences, allowed: Iterable[str], identity: Mapping[str, Any]) -> None:
    """Refuse differences that are not allowed.

    Args:
        found: all of them.
        allowed: keys (``optimizer.lr``), tables (``optimizer``), ``recipe``.
        identity: has every key there is.

    Raises:
        RequestError: with each difference that was not allowed, and each name that
            allows nothing.
    """
    keys = {*_flat(identity), *found}
    tables = {key.rpartition(".")[0] for key in keys if "." in key}
    names = [_plain(name) for name in allowed]
    problems = [
        unknown("thing to allow the change of", name, {*keys, *tables, RECIPE})
        for name in names
        if name not in {RECIPE, *map(_plain, keys), *map(_plain, tables)}
    ]
    in_recipe = set(dict(_settings("", tomllib.loads(identity["recipe"]))))
    for key, (old, new) in found.items():
        if not any(_covers(name, key, key in in_recipe) for name in names):
            problems.append(
                f"This is not the run that was saved: {key} was {old!r} and is now {new!r} "
                f"(--allow-change {key} lets it change)."
            )
    if problems:
        raise RequestError(*problems)


def sentences(found: Differences, step: int) -> list[str]:
    """Say what changes, from the step on that the run goes on from."""
    return [
        f"{key} changes from {old!r} to {new!r} after step {step}."
        for key, (old, new) in found.items()
    ]


def _covers(name: str, key: str, of_recipe: bool) -> bool:
    key = _plain(key)
    return key == name or key.startswith(f"{name}.") or (name == RECIPE and of_recipe)


def _plain(name: str) -> str:
    return name.strip().replace("-", "_")


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity with the recipe's settings by name."""
    rest = {key: value for key, value in identity.items() if key != "recipe"}
    recipe = tomllib.loads(identity["recipe"])
    # How weights are measured afterwards makes no other run.
    return rest | dict(_settings("", {k: v for k, v in recipe.items() if k not in AFTERWARDS}))


def _settings(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _settings(f"{prefix}.{key}" if prefix else key, item)
    else:
        yield prefix, value
