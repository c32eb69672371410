"""Continue a run from its last checkpoint, possibly with changes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from coview.data.sources.arrays import OBJECT
from coview.distributed import is_first, wait
from coview.errors import CoviewError, RequestError, nearest
from coview.files import sweep
from coview.recipes.recipe import AFTERWARDS, find_recipe
from coview.training import checkpoints, crafted
from coview.training.build import assemble
from coview.training.directory import cut_metrics
from coview.training.observers.base import Watcher, restore
from coview.training.request import Request, prepare
from coview.training.run import Run
from coview.training.run_settings import names, run_table

Differences = dict[str, tuple[Any, Any]]
"""Key -> the old and the new value."""

FREE = tuple(name for name in names(computes=False, repeats=True) if name != "data")
"""Settings that a resumed run takes without being allowed to: no number depends on them."""
RECIPE = "recipe"
"""The name that allows changes to every key of the recipe."""


def resumed(request: Request, observers: list[Watcher], settings: dict[str, Any]) -> Run:
    """Return a run in the state of its last checkpoint.

    Args:
        request: what is asked for now.
        observers: built already, those that the run had among them.
        settings: what the run had (:func:`settings_before`).

    Raises:
        RequestError: there is no checkpoint, or it differs from the request.
        CoviewError: the checkpoint is damaged.
    """
    path = request.resume
    assert path is not None
    facts = read_facts(path / "run.json")
    found = checkpoints.newest(path)
    if request.data is None and facts["data"]["name"] == OBJECT:
        raise RequestError(
            "This run's data were a Python object. Pass it again: "
            "coview.train(resume=..., data=...)."
        )
    again = attrs.evolve(
        request,
        method=attrs.evolve(find_recipe(path / "recipe.toml"), name=facts["method"]),
        changes=attrs.evolve(request.changes, preset="none"),
    )
    run = assemble(again, prepare(again, settings), path)
    run.settings = attrs.evolve(run.settings, observe=asked_of(observers))
    before = found.state["identity"]
    # Runs of older versions lack some of these, which are then not compared.
    now = {key: value for key, value in run.identity.items() if key in before}
    run.changed = differences(before, now)
    refuse_others(run.changed, (*request.allow_change, *FREE), run.identity)
    if set(run.changed) <= set(FREE):
        checkpoints.refuse(found.path, crafted.problems(found.state, run.plan.total_steps))
    run.step = run.saved_at = int(found.state["step"])
    notices = _restore(run, found, observers)
    owed = found.state.get("owed")
    if run.step % run.plan.steps_per_epoch == 0 or run.step == run.last_step:
        run.owed = owed
    run.resolved = attrs.evolve(run.resolved, notices=(*run.resolved.notices, *notices))
    if is_first():
        for folder in (path, path / checkpoints.FOLDER):
            sweep(folder)
        run.metrics = cut_metrics(path, run.step, owed and owed["entries"])
    return run


def settings_before(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a saved run, as plain values.

    Version 0.1 kept some of them in ``run.json`` and others in ``recipe.toml``.
    """
    kept = facts.get("settings")
    if kept is None:
        table = run_table(path / "recipe.toml")
        known = {"seed": facts["seed"], "precision": facts["precision"]}
        kept = {**table, **known, "observe": facts.get("observers", [])}
    # A Python object cannot be named; the fingerprint tells whether it is the same.
    return {name: kept[name] for name in names(repeats=True) if name in kept} | {
        "data": facts["data"]["name"]
    }


def asked_of(observers: Iterable[Watcher]) -> tuple[str, ...]:
    """Return the observers that belong to a run, as they were written in the request."""
    return tuple(watcher.asked for watcher in observers if watcher.of_the_run)


def _restore(run: Run, found: checkpoints.Found, observers: list[Watcher]) -> list[str]:
    """Restore the saved state; return sentences that the user should read."""
    changed = [key for key in run.changed if key not in FREE]
    notices = sentences(run.changed, run.step)
    if run.step >= run.last_step and run.last_step < run.plan.total_steps:
        notices.append(
            f"This run has already reached step {run.last_step} (--max-steps). To continue to the "
            "end of its schedule, add: --max-steps none"
        )
    parts = (run.method, run.optimizer, run.scaler)
    notices += checkpoints.restore(found.state, *parts, changed, found.path)
    restore({watcher.name: watcher for watcher in observers}, found.state.get("observers", {}))
    # All processes must have read the checkpoint before the first one renames damaged files.
    wait()
    damaged = checkpoints.put_aside(found) if is_first() else []
    return damaged + notices


def refuse_changes(request: Request) -> None:
    """Refuse settings that cannot change once a run has started, whatever is allowed.

    Raises:
        RequestError: the message lists the names.
    """
    given = ["out"] if request.out is not None else []
    given += [name for name in names(at_start=True) if request.settings.get(name) is not None]
    if request.changes.preset is not None and "preset" not in given:
        given.append("preset")
    if given:
        raise RequestError(
            f"A resumed run keeps its start: leave out {', '.join(given)} when you give resume."
        )


def read_facts(file: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises:
        RequestError: there is no such file.
        CoviewError: it is damaged.
    """
    if not file.is_file():
        raise RequestError(f"There is no run at {file.parent} to resume.")
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        facts["data"]["name"], facts["method"], facts["seed"], facts["precision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CoviewError(f"{file} is damaged: {error!r}.") from error
    return facts


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


def refuse_others(found: Differences, allowed: Iterable[str], identity: Mapping[str, Any]) -> None:
    """Refuse differences that are not allowed.

    Args:
        found: all differences.
        allowed: keys (``optimizer.lr``, or ``lr``), tables (``optimizer``) or ``recipe``.
        identity: an identity, which has all keys.

    Raises:
        RequestError: the message lists each difference that is not allowed, and each
            unknown name.
    """
    keys = {*_flat(identity), *found}
    tables = {key.rpartition(".")[0] for key in keys if "." in key}
    given = [meant for name in allowed for meant in _meant(_plain(name), keys)]
    problems = [
        f"--allow-change {name}: unknown setting.{nearest(name, {*keys, *tables, RECIPE})}"
        for name in given
        if name not in {RECIPE, *map(_plain, keys), *map(_plain, tables)}
    ]
    in_recipe = set(dict(_settings("", tomllib.loads(identity["recipe"]))))
    for key, (old, new) in found.items():
        if not any(_covers(name, key, key in in_recipe) for name in given):
            problems.append(
                f"{key} differs from the saved run ({old!r}, now {new!r}). To change it, add: "
                f"--allow-change {key}"
            )
    if problems:
        raise RequestError(*problems)


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


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity with the recipe's settings by name."""
    rest = {key: value for key, value in identity.items() if key != "recipe"}
    recipe = tomllib.loads(identity["recipe"])
    # The run is the same however its weights are evaluated afterwards.
    return rest | dict(_settings("", {k: v for k, v in recipe.items() if k not in AFTERWARDS}))


def _settings(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _settings(f"{prefix}.{key}" if prefix else key, item)
    else:
        yield prefix, value
