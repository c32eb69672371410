"""``coview.toml``: what a project, and a user, would otherwise type at each ``coview train``.

Two files are read: ``coview.toml`` in the folder in which a command runs, and below it the one
among the user's settings. Their keys are options of ``coview train``, by the names that
:func:`coview.train` gives them; ``[methods.NAME]`` holds those of one method. The command line
is laid over them, as is a recipe file; one without a ``base`` is a whole recipe, and kept as it is.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from coview.errors import RequestError, unknown
from coview.own_code import refuse_unsaid
from coview.recipes.bare import SHORTCUTS
from coview.recipes.configure import OWN, Changes
from coview.recipes.recipe import find_recipe
from coview.settings import fields_of, read_toml, structure

FILE = "coview.toml"
VARIABLE = "COVIEW_NO_DEFAULTS"
"""An environment variable with which neither file is read."""

METHODS = "methods"
SCALARS = ("epochs", "batch_size", "accumulate", "backbone")
RECIPE = (*SCALARS, *SHORTCUTS, "image_size", "use", "set")
"""The options that change a recipe; all others are settings of the run."""


@attrs.frozen
class Defaults:
    """Options from the files.

    Attributes:
        settings: settings of the run, by name.
        origins: the file of each of them, as it is shown.
        below: of each file, what is shown of it and its changes to the recipe; later ones win.
    """

    settings: dict[str, Any] = attrs.field(factory=dict)
    origins: dict[str, str] = attrs.field(factory=dict)
    below: tuple[tuple[str, Changes], ...] = ()

    def told(self) -> Iterator[str]:
        """Yield a line for each file that sets anything."""
        for file in dict.fromkeys((*(name for name, _ in self.below), *self.origins.values())):
            names = [name for name, origin in self.origins.items() if origin == file]
            for name, changes in self.below:
                if name == file:
                    names += [key for key in SCALARS if getattr(changes, key) is not None]
                    names += [*changes.use, *changes.set]
            yield f"defaults of {file}: {', '.join(names)}"


def defaults(method: str, said: Changes) -> Defaults:
    """Return what the two files say about a method.

    Args:
        method: a method's name, or a recipe file.
        said: the changes on the command line; code of the user's own is loaded if it is named
            there too.

    Raises:
        RequestError: with every problem of a file.
    """
    found = Defaults()
    if os.environ.get(VARIABLE):
        return found
    whole = _is_whole(method)
    for path, name in _files():
        given = _read(path, method)
        changes = _changes(path, given)
        _refuse_code(path, changes, said)
        run = {key: value for key, value in given.items() if key not in RECIPE}
        found.settings.update(run)
        found.origins.update(dict.fromkeys(run, name))
        if changes != Changes() and not whole:
            found = attrs.evolve(found, below=(*found.below, (name, changes)))
    return found


def _is_whole(method: str) -> bool:
    """Whether it is a file with a whole recipe."""
    if not method.endswith(".toml"):
        return False
    find_recipe(method)  # refuses a file that is no recipe
    return "base" not in read_toml(Path(method).read_text(encoding="utf-8"))


def _files() -> Iterator[tuple[Path, str]]:
    """Yield the files that exist, each with how it is shown; the nearest is last."""
    user = Path(click.get_app_dir("coview")) / FILE
    if user.is_file():
        yield user, f"your {FILE}"
    if Path(FILE).is_file():
        yield Path(FILE), FILE


def _read(path: Path, method: str) -> dict[str, Any]:
    """Return a file's options for a method."""
    try:
        table = read_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}.") from error
    of_methods = table.pop(METHODS, {})
    if not isinstance(of_methods, Mapping):
        raise RequestError(f"{path}: write [{METHODS}.NAME], not {METHODS} = {of_methods!r}.")
    whole = _checked(path, "", table)
    owns = {name: _checked(path, f"{METHODS}.{name}.", own) for name, own in of_methods.items()}
    own = owns.get(find_recipe(method).name, {}) if owns else {}
    both = {key: {**whole.get(key, {}), **own.get(key, {})} for key in ("use", "set")}
    return {**whole, **own, **{key: value for key, value in both.items() if value}}


def _checked(path: Path, place: str, table: Any) -> dict[str, Any]:
    """Return a table of options with their names in Python; refuse what is no option."""
    from coview.training.run_settings import RunSettings

    if not isinstance(table, Mapping):
        raise RequestError(f"{path}: {place[:-1]} must be a table, not {table!r}.")
    given = {key.replace("-", "_"): value for key, value in table.items()}
    known = [field.name for field in fields_of(RunSettings)]
    run = {key: value for key, value in given.items() if key in known}
    valid = (*known, *RECIPE)
    problems = [unknown("option", key, valid) for key in given if key not in valid]
    problems += structure(RunSettings, run, "")[1]
    problems += [
        f"{key} must be a table, not {given[key]!r}."
        for key in ("use", "set")
        if not isinstance(given.get(key, {}), Mapping)
    ]
    if problems:
        raise RequestError(*(f"{path}: {place}{problem}" for problem in problems))
    return given


def _changes(path: Path, given: Mapping[str, Any]) -> Changes:
    """Return what a file's options change in a recipe."""
    settings = {key: given[key] for key in SHORTCUTS if key in given}
    settings |= dict(_flat(given.get("set", {})))
    if "image_size" in given:
        settings["data.size"] = given["image_size"]
    use = {
        role: [names] if isinstance(names, str) else names
        for role, names in given.get("use", {}).items()
    }
    if not all(isinstance(names, list) for names in use.values()):
        raise RequestError(f'{path}: use takes names: use.negatives = "queue".')
    scalars: dict[str, Any] = {key: given.get(key) for key in SCALARS}
    return Changes(use=use, set=settings, **scalars)


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``optimizer.lr`` and its value of a table in a table."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _refuse_code(path: Path, changes: Changes, said: Changes) -> None:
    def names(asked: Changes, table: str) -> list[str]:
        used = asked.use.get(table, [])
        named = [used] if isinstance(used, str) else list(used)
        return [*named, asked.backbone or ""] if table == "backbone" else named

    named = [(option, name) for table, _, option in OWN for name in names(changes, table)]
    refuse_unsaid(path, named, [name for table, *_ in OWN for name in names(said, table)])
