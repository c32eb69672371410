"""What a shell offers after the Tab key: names that are known without importing torch.

Each function is the ``shell_complete`` of an option or an argument. A plugin's command may use
them too. Settings of components are known only to those who import them, so ``coview
completion`` keeps their names in a file; where it is missing or older than what is installed,
a recipe's own settings are offered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem as Item

from coview.caches import home_folder, own_folder
from coview.errors import CoviewError
from coview.files import write_json
from coview.recipes.recipe import SCALARS, TABLES, Recipe, find_recipe
from coview.recipes.resolve import KINDS, look_up
from coview.recipes.tables import DataSettings
from coview.registry import entries
from coview.settings import fields_of

RUN = "run.json"
"""A folder that has this file is a run."""
KEPT = "completion"
"""The folder, in the user's folder of caches, in which the names of all settings are kept."""


def methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return methods; a path is completed as one."""
    return _named("methods", incomplete)


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return sources of data; a path is completed as one."""
    return _named("datasets", incomplete)


def backbones(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return registered networks; timm's hundreds would need its import."""
    return _named("backbones", incomplete)


def observers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return observers."""
    return _named("observers", incomplete)


def studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return studies; a path is completed as one."""
    return _named("studies", incomplete)


def presets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return the presets of the command's method."""
    recipe = _recipe(ctx)
    return _starting([*(recipe.presets if recipe else ()), "none"], incomplete)


def components(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return ``ROLE=`` and, after it, the role's components."""
    role, equals, rest = incomplete.partition("=")
    if not equals:
        return _starting((f"{name}=" for name in TABLES), incomplete)
    before, comma, last = rest.rpartition(",")
    names = (entry.name for entry in entries(KINDS[role])) if role in KINDS else ()
    return [Item(f"{role}={before}{comma}{item.value}") for item in _starting(names, last)]


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return ``ROLE.KEY=`` for the components of the command's method."""
    recipe = _recipe(ctx)
    keys = () if recipe is None else sorted(_keys(recipe, ctx.params.get("uses") or ()))
    return _starting((f"{key}=" for key in keys), incomplete)


def settings_of_data(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return ``data.KEY=``."""
    return _starting((f"data.{field.name}=" for field in fields_of(DataSettings)), incomplete)


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
    """Return the runs in the folder that was typed, or in ``runs``; other paths if there is none.

    A shell puts the answer of ``file`` to the same use as its own.
    """
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    places = {folder, *(() if incomplete else (Path("runs"),))}
    found = sorted(str(path.parent) for place in places for path in place.glob(f"*/{RUN}"))
    return _starting(found, incomplete) or _path(incomplete)


def keep() -> Path:
    """Keep the names of the settings of every component; return the file.

    Raises:
        CoviewError: it cannot be written.
    """
    names: dict[str, list[str]] = {}
    for table, kind in KINDS.items():
        for entry in entries(kind):
            # What a broken plugin lacks takes nothing from the others: coview doctor names it.
            with suppress(Exception):
                declared = look_up(table, entry.name)[1]
                names[f"{table}:{entry.name}"] = [field.name for field in fields_of(declared)]
    file = own_folder(KEPT) / "settings.json"
    write_json(file, {"installed": _installed(), "settings": names})
    return file


def _keys(recipe: Recipe, changed: Iterable[str]) -> Iterator[str]:
    """Yield the recipe's settings by full name, those of other components in their place."""
    kept, uses = _kept(), dict(text.split("=", 1) for text in changed if "=" in text)
    for table in TABLES:
        own = {use.name: list(use.settings) for use in recipe.uses(table)}
        names = uses[table].split(",") if table in uses else list(own)
        for name in names:
            several = len(names) > 1
            more = ("weight",) if several and table in ("views", "loss") else ()
            for key in (*kept.get(f"{table}:{name}", own.get(name, [])), *more):
                yield f"{table}.{name}.{key}" if several else f"{table}.{key}"
    yield from (f"data.{field.name}" for field in fields_of(DataSettings))
    yield from SCALARS


def _kept() -> dict[str, list[str]]:
    """Return the names that were kept, unless other packages are installed now."""
    with suppress(CoviewError, OSError, ValueError, KeyError, TypeError):
        text = (home_folder() / KEPT / "settings.json").read_text(encoding="utf-8")
        document = json.loads(text)
        if document["installed"] == _installed():
            found: dict[str, list[str]] = document["settings"]
            return found
    return {}


def _installed() -> str:
    """Return a digest of the packages that register something, and their versions."""
    told = {
        f"{entry.package} {entry.version}" for kind in KINDS.values() for entry in entries(kind)
    }
    return hashlib.blake2b("\n".join(sorted(told)).encode(), digest_size=8).hexdigest()


def _recipe(ctx: click.Context) -> Recipe | None:
    # An option that still lacks its value keeps click from giving arguments their names.
    method = ctx.params.get("method") or next(iter(ctx.args), None)
    with suppress(CoviewError):
        if method is not None:
            return find_recipe(method)
    return None


def _named(kind: str, incomplete: str) -> list[Item]:
    """Return what is registered under a name that begins like this; else paths."""
    return _starting((entry.name for entry in entries(kind)), incomplete) or _path(incomplete)


def _path(incomplete: str) -> list[Item]:
    return [Item(incomplete, type="file")]


def _starting(names: Iterable[str], incomplete: str) -> list[Item]:
    return [Item(name) for name in names if name.startswith(incomplete)]
