"""What is wrong with a request for a run, as far as it is known before torch is imported.

That import takes seconds, on a busy machine many. So what needs neither it nor the data is
refused before: a run that is there already, and the names of settings, which are read from the
source of the recipe's components. Whatever is let through is checked again, value by value,
when the recipe is resolved (:mod:`coview.recipes.resolve`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from coview.cli.source import NotKnownError, settings_of
from coview.errors import RequestError, within
from coview.hookspecs import WEIGHED
from coview.recipes.bare import place
from coview.recipes.configure import Changes, lay, lay_preset, lay_written
from coview.recipes.override import Draft, Layers
from coview.recipes.recipe import (
    AFTERWARDS,
    SCALARS,
    TABLES,
    Recipe,
    find_recipe,
    read_layers,
    to_toml,
)
from coview.recipes.resolve import GIVEN, KINDS
from coview.recipes.tables import BackboneSettings, DataSettings
from coview.registry import Entry, entries, find
from coview.settings import fields_of, structure
from coview.torchrun import restarts
from coview.training.differences import COMMAND_LINE, refuse_others
from coview.training.run_settings import names
from coview.training.taken import read_facts, refuse_taken


def refuse_early(method: str, changes: Changes, out: Path | None, layer: str) -> None:
    """Refuse a request for a new run.

    Args:
        method: a method's name, or a recipe file.
        changes: what the user changes in the recipe.
        out: the run's directory, if it was named.
        layer: the origin of the changes.

    Raises:
        RequestError: with every problem found.
    """
    # What torchrun starts anew goes on with the run that it began (coview.training.elastic).
    if out is not None and not restarts():
        refuse_taken(out)
    if problems := wrong_names(method, changes, layer):
        raise RequestError(*problems)


@attrs.frozen(kw_only=True)
class Resumption:
    """What is asked of a run that is resumed; see :class:`coview.training.request.Request`."""

    path: Path
    changes: Changes
    settings: Mapping[str, Any]
    allow_change: tuple[str, ...]
    command: tuple[str, ...]
    layer: str = COMMAND_LINE


def refuse_early_resume(asked: Resumption) -> None:
    """Refuse to resume a run that is not there, or with values that it may not have.

    Only numbers of the recipe can be compared here: other values may be written in several ways,
    and the data have to be read. Where such a one is asked for too, nothing is refused yet, so
    that all differences are told together.

    Raises:
        RequestError: as :func:`coview.training.differences.refuse_others`.
    """
    facts = read_facts(asked.path / "run.json")
    recipe = find_recipe(asked.path / "recipe.toml")
    layers = Layers(recipe)
    lay(layers, asked.changes, asked.layer)
    try:
        problems = _problems(layers)
    except NotKnownError:
        return
    if problems:
        raise RequestError(*problems)
    before = facts.get("settings", {})
    given = asked.settings
    asked_now = {name: given[name] for name in names(computes=True) if name in given}
    if given.get("data") is not None or "auto" in asked_now.values():
        return
    pairs = [(name, before[name], new) for name, new in asked_now.items() if name in before]
    of_recipe = _changed(layers, recipe, asked.layer)
    if of_recipe is None:
        return
    found = {key: (old, new) for key, old, new in sorted([*pairs, *of_recipe]) if old != new}
    # Of a finished run, which may have no step left for them, more is said with the run at hand.
    if found and (not facts.get("finished") or {"epochs", "max_steps"} & found.keys()):
        data = {"data": "", "world_size": 1}
        refuse_others(found, {"recipe": to_toml(recipe), **before, **data}, asked)


Change = tuple[str, Any, Any]
"""Key, the old value and the new one."""


def _changed(layers: Layers, recipe: Recipe, layer: str) -> list[Change] | None:
    """Return what a layer sets in the recipe; None: something that cannot be compared here."""
    changes = [(key, getattr(recipe, key), layers.scalars[key]) for key in SCALARS]
    if layers.data.settings != recipe.data:
        return None
    for table in TABLES:
        uses, drafts = recipe.uses(table), layers.tables[table]
        if [draft.name for draft in drafts] != [use.name for use in uses]:
            return None
        for use, draft in zip(uses, drafts, strict=True):
            for key in (key for key, origin in draft.origins.items() if origin == layer):
                if len(drafts) > 1 or key not in use.settings:
                    return None
                changes.append((f"{table}.{key}", use.settings[key], draft.settings[key]))
    differing = [both for _, *both in changes if both[0] != both[1]]
    numbers = all(isinstance(value, (int, float)) for both in differing for value in both)
    return changes if numbers else None


def wrong_names(method: str, changes: Changes, layer: str) -> list[str]:
    """Return a sentence for each setting, component or preset that there is not.

    Which preset is taken follows from the images, so a setting counts as wrong only if it is
    with each of them.
    """
    recipe, written = read_layers(method)
    presets: list[str | None] = [None, *recipe.presets]
    if changes.preset in recipe.presets or changes.preset == "none":
        presets = [None if changes.preset == "none" else changes.preset]
    elif changes.preset is not None:
        return []  # told with everything else that is wrong, where the presets are chosen
    found: list[list[str]] = []
    for preset in presets:
        layers = Layers(recipe)
        if preset is not None:
            lay_preset(layers, preset, recipe.presets[preset])
        lay_written(layers, changes, written)
        lay(layers, changes, layer)
        try:
            found.append(_problems(layers))
        except NotKnownError:
            return []
    return [] if not all(found) else found[0]


def _problems(layers: Layers) -> list[str]:
    place(layers, _look_up)
    data = structure(DataSettings, layers.data.settings, "data", "", layers.data.origins)[1]
    problems = [*layers.problems, *data]
    for table in TABLES:
        if table not in AFTERWARDS:
            problems += [text for draft in layers.tables[table] for text in _unknown(table, draft)]
    return problems


def _unknown(table: str, draft: Draft) -> list[str]:
    try:
        _, settings, entry = _look_up(table, draft.name)
    except RequestError as error:
        return [within(draft.layer, text) for text in error.problems]
    if table == "backbone":
        known = {field.name for field in fields_of(settings)}
        given = {key: value for key, value in draft.settings.items() if key not in known}
    else:
        given = {k: v for k, v in draft.settings.items() if k != "weight" or table not in WEIGHED}
    owner = f"{table} {draft.name!r}" + (f" ({entry.package})" if entry else "")
    return structure(settings, given, table, owner, draft.origins)[1]


def _look_up(table: str, name: str) -> tuple[Any, type, Entry | None]:
    """Return what stands for a component: its class's name, and its settings of any value."""
    if name.startswith(GIVEN):
        raise NotKnownError(name)  # a Python object, which must be passed again
    if table == "backbone":
        return name, BackboneSettings, None  # timm's names are known to timm alone
    kind = KINDS[table]
    if any(entry.name == kind for entry in entries("catalogues")) and not _installed(table, name):
        raise NotKnownError(name)
    entry = find(kind, name)
    fields = {key: attrs.field(default=None, type=Any) for key in settings_of(entry.value)}
    return entry.value, attrs.make_class("Settings", fields), entry


def _installed(table: str, name: str) -> bool:
    package, _, short = name.rpartition(":")
    return any(e.name == short and package in ("", e.package) for e in entries(KINDS[table]))
