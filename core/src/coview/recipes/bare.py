"""Settings that a user names without their table: ``lr``, ``temperature``, ``momentum``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from coview.errors import RequestError, nearest, within
from coview.recipes.override import Draft, Layers
from coview.recipes.recipe import AFTERWARDS, SCALARS, TABLES
from coview.recipes.tables import DataSettings
from coview.settings import fields_of

OTHER_WORDS = {
    "learning_rate": ("lr",),
    "wd": ("weight_decay",),
    "warmup": ("warmup_epochs",),
    "tau": ("temperature",),
    "momentum": ("momentum", "decay"),
    "ema": ("decay",),
}
"""What people call a setting -> what components call it."""

SHORTCUTS = {
    "lr": "The recipe's learning rate, before it is scaled with the batch size (if the recipe does "
    "that).",
    "weight_decay": "Weight decay.",
    "warmup": "Epochs in which the learning rate rises.",
    "temperature": "Temperature of the loss.",
}
"""Bare names that are options of commands and arguments in Python, and their help."""

LookUp = Callable[[str, str], tuple[Any, type, Any]]
"""(table, component's name) -> its factory, its settings class, and more."""


def place(layers: Layers, look_up: LookUp) -> None:
    """Give each value that was set by a bare name to the one setting of that name.

    A name that no setting has, or several have, becomes a problem. How the network is probed
    and fine-tuned afterwards has settings of the same names, which only their full names reach.
    """
    if not layers.bare:
        return
    known = {f"{where}.{key}": (draft, key) for where, draft, key in _settings(layers, look_up)}
    for name, value, layer in layers.bare:
        words = OTHER_WORDS.get(name, (name,))
        paths = [path for path, (_, key) in known.items() if key in words]
        if len(paths) == 1:
            draft, key = known[paths[0]]
            draft.put({key: value}, layer)
            continue
        problem = f"{name!r} may mean {' or '.join(paths)}: write the one that you mean."
        if not paths:
            problem = (
                f"There is no setting called {name!r} in {layers.recipe.name or 'this recipe'}."
                f"{_guess(name, list(known))} coview show lists all."
            )
        layers.problems.append(within(layer, problem))


def _settings(layers: Layers, look_up: LookUp) -> Iterator[tuple[str, Draft, str]]:
    seen = set()
    for table in (table for table in TABLES if table not in AFTERWARDS):
        drafts = layers.tables[table]
        for draft in drafts:
            try:
                factory, settings, *_ = look_up(table, draft.name)
            except RequestError:
                continue  # resolve() reports it
            if factory in seen:
                continue  # one component in two roles has one set of settings
            seen.add(factory)
            where = f"{table}.{draft.name}" if len(drafts) > 1 else table
            yield from ((where, draft, field.name) for field in fields_of(settings))
    yield from (("data", layers.data, field.name) for field in fields_of(DataSettings))


def _guess(name: str, paths: list[str]) -> str:
    """Return the setting whose last word is nearest, by its full name."""
    words = {path.rpartition(".")[2]: path for path in reversed(paths)}
    hint = nearest(name, [*words, *SCALARS, *OTHER_WORDS])
    word = hint[len(" Did you mean '") : -2]
    return hint.replace(word, words[word]) if word in words else hint
