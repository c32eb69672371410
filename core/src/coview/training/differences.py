"""How a request differs from the run that it resumes, and what of that it may."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from coview.errors import RequestError, nearest
from coview.recipes.recipe import AFTERWARDS, by_path
from coview.recipes.tables import EARLIER, DataSettings
from coview.settings import plain
from coview.training.run_settings import names

Differences = dict[str, tuple[Any, Any]]
"""Key -> the old and the new value."""

FREE = tuple(name for name in names(computes=False, repeats=True) if name != "data")
"""Settings that a resumed run takes without being allowed to: no number depends on them."""
COMMAND_LINE = "command line"
"""The layer of a request that was typed (:attr:`Request.layer`)."""
RECIPE = "recipe"
"""The name that allows changes to every key of the recipe."""


class Asking(Protocol):
    """What is read of a :class:`coview.training.request.Request`."""

    @property
    def allow_change(self) -> tuple[str, ...]:
        """What may differ."""

    @property
    def command(self) -> tuple[str, ...]:
        """The command that was typed."""

    @property
    def layer(self) -> str:
        """Whether it was typed, or called from Python."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """Compare two identities (:attr:`coview.training.run.Run.identity`), key by key.

    The recipe's settings have the same keys as in ``--set``: ``loss.temperature``.
    """
    old, new = _flat(before), _flat(now)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    }


def refuse_others(found: Differences, identity: Mapping[str, Any], request: Asking) -> None:
    """Refuse differences that the request does not allow.

    Args:
        found: all differences.
        identity: an identity, which has all keys.
        request: what is asked for. Its ``allow_change`` has keys (``optimizer.lr``, or
            ``lr``), tables (``optimizer``) or ``recipe``.

    Raises:
        RequestError: the message lists each difference that is not allowed, and each
            unknown name; a note has the request that would be accepted.
    """
    wrong, refused = not_allowed(found, identity, request)
    if not wrong and not refused:
        return
    keys, tables = _names(found, identity)
    choices = {*keys, *tables, RECIPE}
    error = RequestError(
        *(f"--allow-change {name}: unknown setting.{nearest(name, choices)}" for name in wrong),
        *(
            f"{key} differs from the saved run ({old!r}, now {new!r})."
            for key, (old, new) in refused.items()
        ),
    )
    if refused:
        error.add_note(_mended(request, list(refused), wrong))
    raise error


def not_allowed(
    found: Differences, identity: Mapping[str, Any], request: Asking
) -> tuple[list[str], Differences]:
    """Return names in a request's ``allow_change`` that mean nothing, and what it leaves out.

    The arguments are those of :func:`refuse_others`.
    """
    keys, tables = _names(found, identity)
    valid = {RECIPE, *map(_plain, keys), *map(_plain, tables)}
    meant = {name: _meant(_plain(name), keys) for name in request.allow_change}
    wrong = [name for name, those in meant.items() if not valid.issuperset(those)]
    allowed = [*FREE, *(name for those in meant.values() for name in those)]
    in_recipe = set(dict(by_path(tomllib.loads(identity["recipe"]))))
    refused = {
        key: values
        for key, values in found.items()
        if not any(_covers(name, key, key in in_recipe) for name in allowed)
    }
    return wrong, refused


def _names(found: Differences, identity: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return all keys, and the tables that they are in."""
    keys = {*_flat(identity), *found}
    return keys, {key.rpartition(".")[0] for key in keys if "." in key}


def _mended(request: Asking, keys: Sequence[str], wrong: Sequence[str]) -> str:
    """Return how to allow these changes: the whole command, or in Python an argument."""
    start = f"To change {'it' if len(keys) == 1 else 'them'}:"
    if request.layer != COMMAND_LINE:
        kept = [name for name in request.allow_change if name not in wrong]
        return f"{start}\n  allow_change={[*kept, *keys]!r}"
    words = list(request.command[1:])
    for name in wrong:
        for written in (["--allow-change", name], [f"--allow-change={name}"]):
            places = range(len(words) - len(written) + 1)
            for place in (p for p in places if words[p : p + len(written)] == written):
                del words[place : place + len(written)]
                break
    words += [word for key in keys for word in ("--allow-change", key)]
    return f"{start}\n  {shlex.join(['coview', *words])}"


def sentences(found: Differences, step: int) -> list[str]:
    """Return a sentence for each change, with the step after which it applies."""
    return [
        f"{key} changes from {old!r} to {new!r} after step {step}."
        for key, (old, new) in found.items()
    ]


def _covers(name: str, key: str, of_recipe: bool) -> bool:
    key = _plain(key)
    return key == name or key.startswith(f"{name}.") or (name == RECIPE and of_recipe)


def _meant(name: str, keys: Iterable[str]) -> list[str]:
    """Return a name, or the keys that end in it if it is no key by itself."""
    plain = [_plain(key) for key in keys]
    known = name in plain or any(key.startswith(f"{name}.") for key in plain)
    return [name] if known else [key for key in plain if key.endswith(f".{name}")] or [name]


def _plain(name: str) -> str:
    return name.strip().replace("-", "_")


def _tables(written: Any) -> list[dict[str, Any]]:
    return [written] if isinstance(written, dict) else list(written)


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity with the recipe's settings by name."""
    rest = {key: value for key, value in identity.items() if key != "recipe"}
    recipe = tomllib.loads(identity["recipe"])
    # Older runs lack settings of the data: those that change nothing are then not compared.
    recipe["data"] = {**plain(attrs.asdict(DataSettings())), **EARLIER, **recipe.get("data", {})}
    for table in _tables(recipe.get("views", ())):
        if "blur_p" in table:
            table.setdefault("blur_kind", "gaussian")
    # The run is the same however its weights are evaluated afterwards.
    return rest | dict(by_path({k: v for k, v in recipe.items() if k not in AFTERWARDS}))
