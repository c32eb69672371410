"""A run's recipe with where each value comes from: the method as it is installed, or the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from coview.errors import CoviewError, RequestError
from coview.recipes.configure import Changes, configure
from coview.recipes.resolve import Part, Resolved
from coview.settings import fields_of, plain
from coview_report.reading import RunFiles

OF_THE_RUN = "this run"


@attrs.frozen
class Setting:
    """A setting: its value, its meaning, the layer that set it, and what the method has."""

    name: str
    value: str
    help: str = ""
    origin: str = ""
    instead_of: str | None = None

    @property
    def changed(self) -> bool:
        """Whether this run has another value than its method."""
        return self.origin == OF_THE_RUN


@attrs.frozen
class Table:
    """A table of the recipe: a role with its component and settings.

    Attributes:
        role: ``views``, ``loss``, ``data``, ...
        component: its name; empty for tables without one.
        package: the distribution that it comes from.
        instead_of: the component that the method has, where the run chose another.
    """

    role: str
    settings: tuple[Setting, ...]
    component: str = ""
    package: str = ""
    instead_of: str | None = None


@attrs.frozen
class Told:
    """A recipe for people.

    Attributes:
        summary, paper: the method's.
        tables: the run's settings.
        known: whether the method is installed, so that the values' origins are known.
    """

    summary: str
    paper: str
    tables: tuple[Table, ...]
    known: bool

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """What this run has otherwise than its method: name, value, the method's value."""
        found = []
        for table in self.tables:
            prefix = "" if table.role == "training" else f"{table.role}."
            if table.instead_of is not None:
                found.append((table.role, table.component, table.instead_of))
            found += [
                (f"{prefix}{s.name}", s.value, s.instead_of or "not set")
                for s in table.settings
                if s.changed and table.instead_of is None and not _follows(table, s)
            ]
        return found


def _follows(table: Table, setting: Setting) -> bool:
    """Whether a value was chosen for the data, as the method leaves it open."""
    return table.role == "data" and setting.instead_of == "none"


def told(run: RunFiles) -> Told:
    """Return a run's recipe; where its parts are not installed, as it is written."""
    summary, paper = str(run.recipe.get("summary", "")), str(run.recipe.get("paper", ""))
    mine = _resolved(run.path / "recipe.toml", None)
    if mine is None:
        return Told(summary, paper, tuple(_as_written(run.recipe)), False)
    preset = run.facts.get("settings", {}).get("preset")
    base = _resolved(str(run.facts.get("method", "")), None if preset in (None, "none") else preset)
    tables = [
        Table(
            "training",
            _settings(mine.training, base and base.training, base.origins if base else {}),
        )
    ]
    for role, parts in mine.parts.items():
        theirs = base.parts.get(role, ()) if base else ()
        tables += [_table(role, part, theirs, n, base) for n, part in enumerate(parts)]
    data = _settings(mine.data, base and base.data, base.data_origins if base else {})
    return Told(summary, paper, (*tables, Table("data", data)), base is not None)


def _resolved(method: Any, preset: str | None) -> Resolved | None:
    try:
        return configure(method, None, Changes(preset=preset or "none"), OF_THE_RUN)
    except (CoviewError, RequestError):
        return None  # a part of it is not installed here, or has other settings today


def _table(
    role: str, part: Part, theirs: Sequence[Part], number: int, base: Resolved | None
) -> Table:
    other = theirs[number] if number < len(theirs) else None
    same = other is not None and other.name == part.name
    instead = None if same or base is None else (other.name if other else "none")
    settings = _settings(
        part.settings, other.settings if same and other else None, other.origins if other else {}
    )
    return Table(role, settings, part.name, part.package, instead)


def _settings(mine: Any, theirs: Any, origins: Mapping[str, str]) -> tuple[Setting, ...]:
    return tuple(_setting(field, mine, theirs, origins) for field in fields_of(type(mine)))


def _setting(field: Any, mine: Any, theirs: Any, origins: Mapping[str, str]) -> Setting:
    value, help = plain(getattr(mine, field.name)), field.metadata.get("help", "")
    if theirs is None or not hasattr(theirs, field.name):
        return Setting(field.name, _text(value), help)
    before = plain(getattr(theirs, field.name))
    if before == value:
        return Setting(field.name, _text(value), help, origins.get(field.name, ""))
    return Setting(field.name, _text(value), help, OF_THE_RUN, _text(before))


def _as_written(recipe: Mapping[str, Any]) -> list[Table]:
    """Return the tables of ``recipe.toml`` as they stand."""
    tables, loose = [], []
    for name, value in recipe.items():
        if name in ("name", "summary", "paper", "run", "presets"):
            continue
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            loose.append(Setting(name, _text(value)))
            continue
        for part in parts:
            settings = tuple(Setting(k, _text(v)) for k, v in part.items() if k != "use")
            tables.append(Table(name, settings, str(part.get("use", ""))))
    return [*([Table("training", tuple(loose))] if loose else []), *tables]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
