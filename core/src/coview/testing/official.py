"""A method's official configuration, number by number, beside what its recipe does.

A package says it in a file ``METHOD.toml`` beside the module of its recipe:

    idea = "What the method does, in a few sentences."
    precision = "float32"                       # what the official runs computed in
    deviations = ["What no setting holds, and why it differs."]
    wrong = ["What goes wrong, and how it shows."]

    [sources]                                   # what the marks below stand for
    C = "github.com/who/what, main.py"

    [numbers]                                   # as in a recipe: official value, source
    epochs = [200, "C"]
    optimizer.use = ["sgd", "C"]
    optimizer.peak = [0.03, "C"]                # the rate at the recipe's own batch size
    views.blur_p = [0.5, "C", "why ours is another"]

    [[published]]
    what = "linear top-1"
    value = "67.5"
    source = "C"

    [presets.small.numbers]                     # the same for a preset that is published

Whether a number is ours is computed from the recipe; see :func:`rows`.
"""

from __future__ import annotations

import importlib
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from coview.errors import PluginError
from coview.recipes.recipe import AFTERWARDS, by_path
from coview.recipes.resolve import Part, Resolved
from coview.registry import find
from coview.schedules import rate_scale
from coview.settings import fields_of, plain
from coview.testing.recipes import resolved
from coview.views.augmentation import OPERATIONS

__all__ = ["Official", "Row", "problems", "read", "rows", "uncovered"]

OURS = "ours"
"""How the source of a preset begins that is published nowhere."""

HOW = ("size", "antialias", "jitter_order", "blur_kernel", "backend", "compile", "dtype")
"""Settings of views that say how they are computed, of which papers say nothing."""

LAYOUT = ("count", "symmetric", "keys")
"""Settings of views whose defaults need no source: what there is to compare."""

APART = (*AFTERWARDS, "data")
"""Tables whose numbers may be given, but need not be."""


@attrs.frozen
class Row:
    """One number: what is official, what the recipe has, and why they differ if they do."""

    path: str
    official: Any
    ours: Any
    source: str
    reason: str = ""

    @property
    def equal(self) -> bool:
        """Whether the recipe has the official value."""
        return same(self.official, self.ours)


@attrs.frozen
class Official:
    """What a method's file says; see the module."""

    method: str
    idea: str
    sources: Mapping[str, str]
    numbers: Mapping[str, Any]
    precision: str = ""
    deviations: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    wrong: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    published: tuple[Mapping[str, str], ...] = attrs.field(default=(), converter=tuple)
    presets: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)


def read(method: str) -> Official | None:
    """Return what the method's package says of it; None: it has no such file.

    Raises:
        PluginError: the file is broken.
    """
    entry = find("methods", method)
    module = importlib.import_module(entry.value.partition(":")[0])
    path = Path(str(module.__file__)).with_name(f"{entry.name}.toml")
    if not path.is_file():
        return None
    try:
        return Official(entry.name, **tomllib.loads(path.read_text(encoding="utf-8")))
    except (TypeError, tomllib.TOMLDecodeError) as error:
        raise PluginError(f"Package {entry.package}: {path.name} is broken: {error}") from error


def rows(official: Official, preset: str = "none", found: Resolved | None = None) -> list[Row]:
    """Return every number that the file has, or that it has of a preset.

    Args:
        official: what the file says.
        preset: a preset's name; ``"none"``: the recipe itself.
        found: the recipe, resolved; None: it is looked up.
    """
    table = official.numbers if preset == "none" else official.presets[preset]["numbers"]
    found = found or resolved(official.method, preset)
    return [
        Row(path, given[0], _ours(found, path), *given[1:]) for path, given in by_path(dict(table))
    ]


def problems(official: Official, preset: str = "none") -> list[str]:
    """Return a sentence for each number that differs without a reason, or has a needless one."""
    said = []
    for row in rows(official, preset):
        here = f"{official.method}, preset {preset}: {row.path}"
        if row.equal and row.reason:
            said.append(f"{here} is the official {row.official!r}, and needs no reason.")
        if not row.equal and not row.reason:
            said.append(f"{here} is {row.ours!r}, officially {row.official!r}, without a reason.")
        unknown = [mark for mark in row.source.split(", ") if mark not in official.sources]
        said += [f"{here} has a source {mark!r} that [sources] lacks." for mark in unknown]
    return said


def uncovered(official: Official, preset: str = "none") -> list[str]:
    """Return the settings that the recipe (or preset) sets, or its views have, and no row has."""
    found = resolved(official.method, preset)
    known = {row.path for row in rows(official, preset, found)}
    known |= {path.replace("peak", part) for path in known for part in ("lr", "lr_rule")}
    return [path for path in _to_cover(found, preset) if path not in known]


def same(one: Any, other: Any) -> bool:
    """Return whether two plain values are the same; numbers to nine digits."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
    return math.isclose(one, other, rel_tol=1e-9) if numbers else bool(one == other)


def _to_cover(found: Resolved, preset: str) -> Iterator[str]:
    layer = "recipe" if preset == "none" else f"preset {preset}"
    for name in ("epochs", "batch_size", "evaluates"):
        usual = name == "evaluates" and preset == "none" and found.training.evaluates == "online"
        if found.origins[name] == layer and not usual:
            yield name
    for table, parts in found.parts.items():
        for part in parts if table not in APART else ():
            start = table if len(parts) == 1 else f"{table}.{part.name}"
            drawn = table == "views" and preset == "none"
            known = {*_idle(part.settings), *HOW} if table == "views" else set()
            for name, origin in part.origins.items():
                ours = origin == layer or (drawn and origin == "default" and name not in LAYOUT)
                if ours and name not in known and part.shared_with is None:
                    yield f"{start}.{name}"


def _idle(settings: Any) -> Iterator[str]:
    """Yield the settings of operations on views that are not applied."""
    order = getattr(settings, "order", ())
    names = [field.name for field in fields_of(type(settings))]
    for operation in OPERATIONS if order else ():
        own = [name for name in names if name.removeprefix("second_").startswith(operation)]
        rates = [name for name in own if name.endswith("_p")]
        values = [plain(getattr(settings, name)) for name in rates]
        off = not any(any(v) if isinstance(v, list) else v for v in values) if rates else False
        if operation not in order:
            yield from own
        elif off:
            yield from (name for name in own if name not in rates)


def _ours(found: Resolved, path: str) -> Any:
    table, _, name = path.partition(".")
    if not name:
        return plain(getattr(found.training, table))
    if table == "data":
        return plain(getattr(found.data, name))
    parts = found.parts[table]
    if name == "use":
        return ", ".join(part.name for part in parts)
    which, _, short = name.rpartition(".")
    part = next(part for part in parts if which in ("", part.name))
    if short == "peak":
        return _peak(part, found)
    if short == "weight":  # a loss may have one of its own, beside its settings
        return plain(getattr(part.settings, short, part.weight))
    return plain(getattr(part.settings, short))


def _peak(part: Part, found: Resolved) -> float:
    """Return a learning rate at the batch size that it is used with."""
    names = [field.name for field in fields_of(type(part.settings))]
    batch = part.settings.batch_size if "batch_size" in names else found.training.batch_size
    return float(part.settings.lr * rate_scale(part.settings.lr_rule or "none", batch))
