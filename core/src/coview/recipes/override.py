"""A recipe with changes laid over it, layer by layer, before anything is imported.

Every value remembers the layer that set it: the recipe, a preset, the command
line (or the arguments in Python).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from coview.errors import RequestError, named_twice, unknown
from coview.hookspecs import SEVERAL
from coview.recipes.recipe import LISTS, SCALARS, TABLES, Recipe, Use
from coview.registry import role_of


@attrs.define(eq=False)
class Draft:
    """A component's name and settings, while layers are laid over them."""

    name: str
    layer: str
    settings: dict[str, Any] = attrs.field(factory=dict)
    origins: dict[str, str] = attrs.field(factory=dict)

    def put(self, settings: Mapping[str, Any], layer: str) -> None:
        """Set values and remember which layer set them."""
        self.settings |= settings
        self.origins |= dict.fromkeys(settings, layer)


class Layers:
    """A recipe with changes laid over it; collects problems instead of raising."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.problems: list[str] = []
        self.bare: list[tuple[str, Any, str]] = []  # name, value, layer: recipes/bare.py
        self.scalars = {key: getattr(recipe, key) for key in SCALARS}
        self.origins = dict.fromkeys(SCALARS, "recipe")
        self.data = Draft("data", "recipe")
        self.data.put(recipe.data, "recipe")
        self.tables: dict[str, list[Draft]] = {}
        for table in TABLES:
            self.tables[table] = []
            for use in recipe.uses(table):
                self._add(table, use, "recipe")

    def _add(self, table: str, use: Use, layer: str) -> None:
        draft = Draft(use.name, layer)
        draft.put(use.settings, layer)
        self.tables[table].append(draft)

    def change(self, changes: Mapping[str, Any], layer: str) -> None:
        """Lay nested changes (of a preset or a file) over the recipe."""
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
                self.problems.append(f"{table} needs a name: use = NAME.")
                return
        uses = [_as_use(item, present[p : p + 1]) for p, item in enumerate(several)]
        if self.use(table, [use.name for use in uses], layer):
            for draft, use in zip(self.tables[table], uses, strict=True):
                draft.put(use.settings, layer)

    def scalar(self, key: str, value: Any, layer: str) -> None:
        """Set one of the recipe's own values."""
        self.scalars[key] = value
        self.origins[key] = layer

    def use(self, table: str, names: Sequence[str], layer: str) -> bool:
        """Let a table use other components, if it can; one that is used keeps its settings."""
        if table not in TABLES:
            try:
                table = role_of(table)
            except RequestError as error:
                self.problems.extend(error.problems)
                return False
        if table == "wrap" and list(names) == ["none"]:
            names = []
        wrong = named_twice(table, names)
        if len(names) > 1 and table not in (*SEVERAL, *LISTS):
            wrong = [f"{table} takes one component, not {len(names)}."]
        self.problems += wrong
        if not wrong:
            before = {draft.name: draft for draft in self.tables[table]}
            self.tables[table] = [before.get(name) or Draft(name, layer) for name in names]
        return not wrong

    def set(self, path: str, value: Any, layer: str) -> None:
        """Set ``ROLE.KEY`` (``negatives.NAME.KEY`` where there are several), or ``KEY``."""
        if path in SCALARS:
            self.scalar(path, value, layer)
            return
        head, _, key = path.partition(".")
        if head == "data" and key:
            self.data.put({key: value}, layer)
            return
        table = head if head in TABLES else _role_or_none(head)
        if table is None and path.isidentifier() and path != "data":
            self.bare.append((path, value, layer))
            return
        if table is None or not key:
            valid = [*SCALARS, "data.KEY", *(f"{name}.KEY" for name in TABLES)]
            self.problems.append(unknown("setting", path, valid))
            return
        drafts = self.tables[table]
        if isinstance(value, Mapping) and any(draft.name == key for draft in drafts):
            for name, item in value.items():
                self.set(f"{path}.{name}", item, layer)
            return
        name, _, short = key.rpartition(".")
        chosen = [d for d in drafts if name in ("", d.name)]
        if len(chosen) != 1:
            listed = " or ".join(f"{table}.{draft.name}.{short}" for draft in drafts)
            self.problems.append(f"{path} is not clear. Write what you mean: {listed}.")
            return
        chosen[0].put({short: value}, layer)


def _as_use(value: Any, present: Sequence[str]) -> Use:
    """Return a use; a table without a name means the component already at its place."""
    if isinstance(value, Mapping):
        name = value["use"] if "use" in value else present[0]
        return Use(str(name), **{k: v for k, v in value.items() if k != "use"})
    return value if isinstance(value, Use) else Use(str(value))


def _role_or_none(word: str) -> str | None:
    try:
        return role_of(word)
    except RequestError:
        return None
