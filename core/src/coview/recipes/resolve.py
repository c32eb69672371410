"""From a recipe with a user's changes to validated settings.

The components' defaults lie below the layers of :mod:`coview.recipes.override`. Every value
remembers the layer that set it, and all problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from coview.components import Component, EvaluationProtocol, declared, refuse_undeclared
from coview.errors import CoviewError, RequestError, named_twice, within
from coview.hookspecs import ROLES, WEIGHED
from coview.own_code import placed
from coview.recipes.bare import place
from coview.recipes.override import Draft, Layers
from coview.recipes.recipe import AFTERWARDS, COMPONENTS, LISTS, SOURCE, TABLES, Recipe, Use
from coview.recipes.tables import (
    BackboneSettings,
    DataSettings,
    NoSettings,
    OwnViewSettings,
    TrainingSettings,
    Weight,
)
from coview.recipes.whole import fitted
from coview.registry import Entry, find, kind_of_role
from coview.schedules import Schedule
from coview.settings import fields_of, plain, structure

CORE = "coview"
GIVEN = "python:"
"""Prefix of the name that stands for an object passed in Python."""


@attrs.frozen(eq=False)
class Part:
    """A table of the recipe, resolved.

    Attributes:
        table: a role, or ``backbone``, ``optimizer``, ``schedule``, ``data``.
        name: the component's name.
        package: the distribution it comes from.
        version: that distribution's version.
        factory: the component's class, or a function that builds it.
        settings: an instance of its settings class.
        origins: the layer that set each setting.
        shared_with: the earlier role that the same component already fills.
        weight: of one loss in their sum, or of one views component in their mixture.
    """

    table: str
    name: str
    package: str
    version: str
    factory: Any
    settings: Any
    origins: Mapping[str, str]
    shared_with: str | None = None
    weight: float | Schedule = 1.0


@attrs.frozen(eq=False)
class Resolved:
    """A validated recipe.

    Attributes:
        recipe: the recipe with every setting written out and any preset applied.
        training: its own values (epochs, batch size, ...).
        parts: the resolved parts, by table.
        preset: the preset that was applied, if any.
        presets: the names of all that there are.
        preset_source: what the preset says of its source.
        notices: sentences that the user should read.
    """

    recipe: Recipe
    training: TrainingSettings
    origins: Mapping[str, str]
    parts: Mapping[str, tuple[Part, ...]]
    data: Any
    data_origins: Mapping[str, str]
    preset: str | None
    notices: tuple[str, ...]
    presets: tuple[str, ...] = ()
    preset_source: str = ""

    def part(self, table: str) -> Part:
        """Return the (first) part of a table."""
        return self.parts[table][0]


def resolve(layers: Layers, preset: str | None = None, notices: Iterable[str] = ()) -> Resolved:
    """Import the named components and check every value.

    Raises:
        RequestError: with every problem found.
        PluginError: a named component cannot be loaded.
    """
    _keep_symmetry(layers)
    place(layers, look_up)
    problems = layers.problems
    training, wrong = structure(TrainingSettings, layers.scalars, "", "the recipe", layers.origins)
    problems += wrong
    parts = {table: _parts(table, layers.tables[table], problems) for table in TABLES}
    data, wrong = structure(DataSettings, layers.data.settings, "data", "", layers.data.origins)
    problems += wrong
    if data is not None:
        data = fitted(data, parts, preset, problems)
    _share(parts, layers.tables, problems)
    problems += _unmet_needs(parts)
    if problems:
        raise RequestError(*problems)
    return Resolved(
        recipe=_written_out(layers.recipe, parts, training, data),
        training=training,
        origins=layers.origins,
        parts=parts,
        data=data,
        data_origins=_origins(type(data), layers.data.origins),
        preset=preset,
        notices=(*notices, *_unused(parts)),
        presets=tuple(layers.recipe.presets),
        preset_source=layers.recipe.presets.get(preset or "", {}).get(SOURCE, ""),
    )


def _keep_symmetry(layers: Layers) -> None:
    """Compare views of the user's own as the recipe compares the views that they replace."""
    recipe = layers.recipe.uses("views")[0]
    for draft in layers.tables["views"]:
        try:
            own = look_up("views", draft.name)[1] is OwnViewSettings
            replaced = look_up("views", recipe.name)[1]
        except RequestError:
            return  # reported with everything else
        if own and replaced is not OwnViewSettings and "symmetric" not in draft.settings:
            default = getattr(replaced(), "symmetric", True)
            draft.put({"symmetric": recipe.settings.get("symmetric", default)}, "recipe")


def _parts(table: str, drafts: Sequence[Draft], problems: list[str]) -> tuple[Part, ...]:
    made = [_part(table, draft, problems, several=len(drafts) > 1) for draft in drafts]
    parts = tuple(part for part in made if part is not None)
    problems += named_twice(table, [part.name for part in parts])
    return parts


def _part(table: str, draft: Draft, problems: list[str], several: bool) -> Part | None:
    draft.name = placed(draft.name)
    try:
        factory, settings_class, entry = look_up(table, draft.name)
    except RequestError as error:
        problems.extend(within(draft.layer, text) for text in error.problems)
        return None
    owner = f"{table} {draft.name!r}" + (f" ({entry.package})" if entry else "")
    where = f"{table}.{draft.name}" if several else table
    given, by = dict(draft.settings), draft.origins
    weight, wrong = structure(Weight, _weight(table, settings_class, given), where, owner, by)
    problems += wrong
    settings, wrong = structure(settings_class, given, where, owner, by)
    problems += wrong
    package = entry.package if entry else CORE
    version = entry.version if entry else ""
    origins = _origins(settings_class, draft.origins)
    # As its package spells it, unless the package is named too.
    name = entry.name if entry and ":" not in draft.name else draft.name
    share = 1.0 if weight is None else weight.weight
    return Part(table, name, package, version, factory, settings, origins, weight=share)


def _weight(table: str, settings_class: type, given: dict[str, Any]) -> dict[str, Any]:
    """Take the weight out of the settings of a loss or views component that has none itself."""
    own = any(field.name == "weight" for field in fields_of(settings_class))
    if own or table not in WEIGHED or "weight" not in given:
        return {}
    return {"weight": given.pop("weight")}


def _origins(settings_class: type, set_by: Mapping[str, str]) -> dict[str, str]:
    return {field.name: set_by.get(field.name, "default") for field in fields_of(settings_class)}


KINDS = {
    **{role: kind_of_role(role) for role in COMPONENTS},
    "backbone": "backbones",
    "optimizer": "optimizers",
    "schedule": "schedules",
    **dict.fromkeys(AFTERWARDS, "protocols"),
}
"""The kind of component that each table names."""


def look_up(table: str, name: str) -> tuple[Any, type, Entry | None]:
    """Look up a name in a table: return its factory, settings class and entry."""
    if name.startswith(GIVEN):
        return _given(table, name)
    if table in AFTERWARDS and name == "none":
        return None, NoSettings, None
    entry = find(KINDS[table], name)
    factory = entry.load()
    if table in COMPONENTS:
        label = f"{table} {entry.name!r} of package {entry.package}"
        refuse_undeclared(factory, label, (table,))
    return factory, _settings_class(table, entry, factory), entry


def _settings_class(table: str, entry: Entry, factory: Any) -> type:
    if table == "backbone":
        return BackboneSettings
    if table in AFTERWARDS:
        settings: type | None = declared(factory, EvaluationProtocol, f"{table}_settings")
        if settings is None:
            raise RequestError(
                f"Evaluation protocol {entry.name!r} ({entry.package}) cannot be used for {table}."
            )
        return settings
    settings = getattr(factory, "Settings", None)
    if settings is None or not attrs.has(settings):
        raise CoviewError(
            f"Package {entry.package}: {table} {entry.name!r} ({entry.value}) needs an attrs "
            "class called Settings inside it."
        )
    return settings


def _given(table: str, name: str) -> tuple[Any, type, None]:
    """Stand in for an object passed in Python, which must be passed again."""

    def refuse(*_: Any) -> Any:
        raise RequestError(
            f"This recipe's {table} was a Python object ({name.removeprefix(GIVEN)}). Pass it "
            f"again: coview.train(..., {table}=...)."
        )

    return refuse, OwnViewSettings if table == "views" else NoSettings, None


def _share(
    parts: dict[str, tuple[Part, ...]], drafts: Mapping[str, list[Draft]], problems: list[str]
) -> None:
    """Make a class that is named for two roles one component, with the first role's settings."""
    first: dict[Any, Part] = {}
    for role in ROLES:
        updated = []
        for part, draft in zip(parts[role], drafts[role], strict=False):
            earlier = first.setdefault(part.factory, part)
            if earlier.table != role:  # else it is registered under two names, to be used twice
                differing = [
                    key
                    for key in draft.settings
                    if getattr(part.settings, key, None) != getattr(earlier.settings, key, None)
                ]
                if differing and part.settings is not None:
                    problems.append(
                        f"{role} {part.name!r} is the same component as the {earlier.table}. "
                        f"Set {', '.join(f'{earlier.table}.{key}' for key in differing)} instead."
                    )
                part = attrs.evolve(part, settings=earlier.settings, shared_with=earlier.table)
            updated.append(part)
        parts[role] = tuple(updated)


def _fills(parts: Mapping[str, tuple[Part, ...]], role: str) -> bool:
    return any(part.name not in ("none",) for part in parts[role])


def _unmet_needs(parts: Mapping[str, tuple[Part, ...]]) -> list[str]:
    """Return a sentence for each role that a component needs and nothing fills."""
    return [
        f"{role} {part.name!r} needs {needed}: {reason}. Add --use {needed}=NAME."
        for role in COMPONENTS
        for part in parts[role]
        for needed, reason in declared(part.factory, Component, "needs").items()
        if not _fills(parts, needed)
    ]


def _unused(parts: Mapping[str, tuple[Part, ...]]) -> list[str]:
    """Return a sentence for each role that is filled although a component ignores it."""
    return [
        f"{role} {part.name!r} ignores {ignored}: "
        f"{', '.join(p.name for p in parts[ignored])} has no effect."
        for role in COMPONENTS
        for part in parts[role]
        for ignored in declared(part.factory, Component, "ignores")
        if _fills(parts, ignored)
    ]


def _written_out(
    recipe: Recipe, parts: Mapping[str, tuple[Part, ...]], training: TrainingSettings, data: Any
) -> Recipe:
    def use(part: Part) -> Use:
        shown = {} if part.shared_with else plain(attrs.asdict(part.settings, recurse=False))
        weight = {} if part.weight == 1.0 else plain({"weight": part.weight})
        return Use(part.name, **shown, **weight)

    tables: dict[str, Any] = {t: tuple(use(part) for part in parts[t]) for t in TABLES}
    tables |= {t: uses[0] for t, uses in tables.items() if len(uses) == 1 and t not in LISTS}
    numbers = attrs.asdict(training)
    settings = plain(attrs.asdict(data))
    return attrs.evolve(recipe, presets={}, data=settings, **tables, **numbers)
