"""From a recipe and what its user changed to settings that are known to be right.

Layers lie over each other: the components' defaults, the recipe, a preset, the
command line (or Python's arguments). Every value remembers the layer that set
it, and every problem is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from coview.errors import CoviewError, RequestError, unknown
from coview.hookspecs import ROLES
from coview.recipes import SCALARS, TABLES, Recipe, Use
from coview.registry import Entry, find, kind_of_role, role_of
from coview.settings import fields_of, ge, one_of, plain, setting, structure

CORE = "coview"
GIVEN = "python:"
"""What the name of an object starts with that was given in Python."""


@attrs.frozen
class NoSettings:
    """Of something that has none."""


@attrs.frozen
class TrainingSettings:
    """The recipe's own numbers."""

    epochs: int = setting(200, "passes over the training set", ge(1))
    batch_size: int = setting(256, "images an optimiser step, over all processes", ge(2))
    accumulate: int = setting(1, "micro-batches an optimiser step", ge(1))
    evaluates: str = setting(
        "online", "the network that is exported and evaluated", one_of("online", "target")
    )


@attrs.frozen(eq=False)
class Part:
    """A table of the recipe, resolved.

    Attributes:
        table: a role, or ``backbone``, ``optimizer``, ``schedule``, ``data``.
        name: of the component.
        package: the distribution it comes from.
        version: of that distribution.
        factory: the component's class (or what builds it).
        settings: an instance of its settings class.
        origins: by setting, the layer that set it.
        shared_with: the earlier role that the same component already fills.
    """

    table: str
    name: str
    package: str
    version: str
    factory: Any
    settings: Any
    origins: Mapping[str, str]
    shared_with: str | None = None


@attrs.frozen(eq=False)
class Resolved:
    """A recipe that is known to be right.

    Attributes:
        recipe: with every setting written out, presets applied and gone.
        training: its own numbers.
        parts: by table.
        preset: the preset that was applied, if any.
        notices: what the user should know, in sentences.
    """

    recipe: Recipe
    training: TrainingSettings
    origins: Mapping[str, str]
    parts: Mapping[str, tuple[Part, ...]]
    data: Any
    data_origins: Mapping[str, str]
    preset: str | None
    notices: tuple[str, ...]

    def part(self, table: str) -> Part:
        """Return the (first) part of a table."""
        return self.parts[table][0]


@attrs.define(eq=False)
class _Draft:
    """A name with settings while layers are laid over it."""

    name: str
    layer: str
    settings: dict[str, Any] = attrs.field(factory=dict)
    origins: dict[str, str] = attrs.field(factory=dict)

    def put(self, settings: Mapping[str, Any], layer: str) -> None:
        self.settings |= settings
        self.origins |= dict.fromkeys(settings, layer)


class Layers:
    """A recipe with changes laid over it; collects problems instead of raising."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.problems: list[str] = []
        self.scalars = {key: getattr(recipe, key) for key in SCALARS}
        self.origins = dict.fromkeys(SCALARS, "recipe")
        self.data = _Draft("data", "recipe")
        self.data.put(recipe.data, "recipe")
        self.tables: dict[str, list[_Draft]] = {}
        for table in TABLES:
            self.tables[table] = []
            for use in recipe.uses(table):
                self._add(table, use, "recipe")

    def _add(self, table: str, use: Use, layer: str) -> None:
        draft = _Draft(use.name, layer)
        draft.put(use.settings, layer)
        self.tables[table].append(draft)

    def change(self, changes: Mapping[str, Any], layer: str) -> None:
        """Lay a preset's (or Python's) nested changes over the recipe."""
        for key, value in changes.items():
            if key in SCALARS:
                self.scalar(key, value, layer)
            elif key == "data":
                if isinstance(value, Mapping):
                    self.data.put(value, layer)
                else:
                    self.problems.append(f"data must be a table, not {value!r}.")
            elif key not in TABLES:
                self.problems.append(unknown("key", key, (*SCALARS, "data", *TABLES)))
            else:
                self._change_table(key, value, layer)

    def _change_table(self, table: str, value: Any, layer: str) -> None:
        if isinstance(value, Mapping) and "use" not in value:
            for key, item in value.items():
                self.set(f"{table}.{key}", item, layer)
            return
        several = value if isinstance(value, (list, tuple)) else [value]
        present = [draft.name for draft in self.tables[table]]
        for position, item in enumerate(several):
            if isinstance(item, Mapping) and "use" not in item and position >= len(present):
                self.problems.append(f"{table} must name what it uses: use = NAME.")
                return
        uses = [_as_use(item, present[p : p + 1]) for p, item in enumerate(several)]
        self.use(table, [use.name for use in uses], layer)
        for draft, use in zip(self.tables[table], uses, strict=True):
            draft.put(use.settings, layer)

    def scalar(self, key: str, value: Any, layer: str) -> None:
        """Set one of the recipe's own numbers."""
        self.scalars[key] = value
        self.origins[key] = layer

    def use(self, table: str, names: Sequence[str], layer: str) -> None:
        """Let a table use other components; one already there keeps its settings."""
        if table not in TABLES:
            try:
                table = role_of(table)
            except RequestError as error:
                self.problems.extend(error.problems)
                return
        if len(names) > 1 and table != "negatives":
            self.problems.append(f"{table} takes one component, not {len(names)}.")
            return
        if twice := sorted({name for name in names if names.count(name) > 1}):
            self.problems += [f"{table} names {name!r} twice." for name in twice]
            return
        before = {draft.name: draft for draft in self.tables[table]}
        self.tables[table] = [before.get(name) or _Draft(name, layer) for name in names]

    def set(self, path: str, value: Any, layer: str) -> None:
        """Set ``ROLE.KEY`` (or ``negatives.NAME.KEY`` where there are several sources)."""
        if path in SCALARS:
            self.scalar(path, value, layer)
            return
        head, _, key = path.partition(".")
        if head == "data" and key:
            self.data.put({key: value}, layer)
            return
        table = head if head in TABLES else _role_or_none(head)
        if table is None or not key:
            valid = [*SCALARS, "data.KEY", *(f"{name}.KEY" for name in TABLES)]
            self.problems.append(unknown("setting", path, valid))
            return
        drafts = self.tables[table]
        name, _, short = key.rpartition(".")
        chosen = [d for d in drafts if name in ("", d.name)]
        if len(chosen) != 1:
            listed = ", ".join(f"{table}.{draft.name}.{short}" for draft in drafts)
            self.problems.append(f"{path} is not one setting; write one of: {listed}.")
            return
        chosen[0].put({short: value}, layer)

    def resolve(self, preset: str | None = None, notices: Iterable[str] = ()) -> Resolved:
        """Import what is named and check every value.

        Raises:
            RequestError: with every problem found.
            PluginError: a named component cannot be loaded.
        """
        training, problems = structure(TrainingSettings, self.scalars, "the recipe")
        self.problems += problems
        parts = {table: self._parts(table) for table in TABLES}
        data = self._data()
        _share(parts, self.tables, self.problems)
        self.problems += _unmet_needs(parts)
        if self.problems:
            raise RequestError(*self.problems)
        return Resolved(
            recipe=_written_out(self.recipe, parts, training, data),
            training=training,
            origins=self.origins,
            parts=parts,
            data=data,
            data_origins=_origins(type(data), self.data.origins),
            preset=preset,
            notices=(*notices, *_unused(parts)),
        )

    def _parts(self, table: str) -> tuple[Part, ...]:
        made = (self._part(table, draft) for draft in self.tables[table])
        return tuple(part for part in made if part is not None)

    def _part(self, table: str, draft: _Draft) -> Part | None:
        try:
            factory, settings_class, entry = _look_up(table, draft.name)
        except RequestError as error:
            self.problems.extend(error.problems)
            return None
        settings, problems = structure(settings_class, draft.settings, table)
        self.problems += problems
        package = entry.package if entry else CORE
        version = entry.version if entry else ""
        origins = _origins(settings_class, draft.origins)
        return Part(table, draft.name, package, version, factory, settings, origins)

    def _data(self) -> Any:
        from coview.data.base import DataSettings

        data, problems = structure(DataSettings, self.data.settings, "data")
        self.problems += problems
        return data


def _origins(settings_class: type, set_by: Mapping[str, str]) -> dict[str, str]:
    return {field.name: set_by.get(field.name, "default") for field in fields_of(settings_class)}


def _as_use(value: Any, present: Sequence[str]) -> Use:
    """Return a use; a table that names nothing means what is at its place."""
    if isinstance(value, Mapping):
        name = value["use"] if "use" in value else present[0]
        return Use(str(name), **{k: v for k, v in value.items() if k != "use"})
    return value if isinstance(value, Use) else Use(str(value))


def _role_or_none(word: str) -> str | None:
    try:
        return role_of(word)
    except RequestError:
        return None


def _look_up(table: str, name: str) -> tuple[Any, type, Entry | None]:
    """Return what a name means in a table: a factory, its settings class, its entry."""
    if name.startswith(GIVEN):
        return _given(table, name)
    if table == "backbone":
        from coview.backbones import BackboneSettings, find_backbone

        factory, entry = find_backbone(name)
        return factory, BackboneSettings, entry
    if table in ("optimizer", "schedule"):
        from coview.training.optimizers import OPTIMIZERS
        from coview.training.rates import SCHEDULES

        known: Mapping[str, Any] = OPTIMIZERS if table == "optimizer" else SCHEDULES
        if name not in known:
            raise RequestError(unknown(table, name, known))
        return known[name], known[name].Settings, None
    entry = find(kind_of_role(table), name)
    factory = entry.load()
    settings_class = getattr(factory, "Settings", None)
    if settings_class is None or not attrs.has(settings_class):
        raise CoviewError(
            f"Package {entry.package}: {table} {entry.name!r} ({entry.value}) has no attrs "
            "class called Settings inside it."
        )
    return factory, settings_class, entry


def _given(table: str, name: str) -> tuple[Any, type, None]:
    """Stand in for an object that was given in Python, and has to be given again."""

    def refuse(*_: Any) -> Any:
        raise RequestError(
            f"This recipe's {table} was a Python object ({name.removeprefix(GIVEN)}): pass it "
            f"again, coview.train(..., {table}=...)."
        )

    return refuse, NoSettings, None


def _share(
    parts: dict[str, tuple[Part, ...]], drafts: Mapping[str, list[_Draft]], problems: list[str]
) -> None:
    """Let a class that is named for two roles be one component, with the first's settings."""
    first: dict[Any, Part] = {}
    for role in ROLES:
        updated = []
        for part, draft in zip(parts[role], drafts[role], strict=False):
            earlier = first.setdefault(part.factory, part)
            if earlier is not part:
                differing = [
                    key
                    for key in draft.settings
                    if getattr(part.settings, key, None) != getattr(earlier.settings, key, None)
                ]
                if differing and part.settings is not None:
                    problems.append(
                        f"{role} {part.name!r} is the same component as the {earlier.table}: "
                        f"set {', '.join(f'{earlier.table}.{key}' for key in differing)} there."
                    )
                part = attrs.evolve(part, settings=earlier.settings, shared_with=earlier.table)
            updated.append(part)
        parts[role] = tuple(updated)


def _fills(parts: Mapping[str, tuple[Part, ...]], role: str) -> bool:
    return any(part.name not in ("none",) for part in parts[role])


def _unmet_needs(parts: Mapping[str, tuple[Part, ...]]) -> list[str]:
    """Return a sentence for each component whose ``needs`` nothing fills."""
    return [
        f"{role} {part.name!r} needs {needed}: {reason}. Add --use {needed}=NAME."
        for role in ROLES
        for part in parts[role]
        for needed, reason in getattr(part.factory, "needs", {}).items()
        if not _fills(parts, needed)
    ]


def _unused(parts: Mapping[str, tuple[Part, ...]]) -> list[str]:
    """Return a sentence for each role that is filled though a component ignores it."""
    return [
        f"{role} {part.name!r} makes no use of {ignored}: "
        f"{', '.join(p.name for p in parts[ignored])} is kept for nothing."
        for role in ROLES
        for part in parts[role]
        for ignored in getattr(part.factory, "ignores", ())
        if _fills(parts, ignored)
    ]


def _written_out(
    recipe: Recipe, parts: Mapping[str, tuple[Part, ...]], training: TrainingSettings, data: Any
) -> Recipe:
    def use(part: Part) -> Use:
        shown = {} if part.shared_with else plain(attrs.asdict(part.settings, recurse=False))
        return Use(part.name, **shown)

    tables: dict[str, Any] = {t: use(parts[t][0]) for t in TABLES if t != "negatives"}
    tables["negatives"] = tuple(use(part) for part in parts["negatives"])
    numbers = attrs.asdict(training)
    settings = plain(attrs.asdict(data))
    return attrs.evolve(recipe, presets={}, data=settings, **tables, **numbers)
