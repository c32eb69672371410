"""Continue a run from its last checkpoint, possibly with changes."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from coview.data.sources.arrays import OBJECT
from coview.distributed import is_first, wait
from coview.errors import CoviewError, RequestError, nearest
from coview.files import sweep
from coview.recipes.recipe import AFTERWARDS, by_path, find_recipe
from coview.recipes.resolve import Resolved
from coview.recipes.tables import EARLIER, DataSettings
from coview.settings import plain
from coview.training import checkpoints, crafted
from coview.training.build import assemble
from coview.training.directory import METRICS, cut_metrics, readable_lines
from coview.training.observers.base import Watcher, restore
from coview.training.request import Request, prepare
from coview.training.run import Run
from coview.training.run_settings import names, run_table

Differences = dict[str, tuple[Any, Any]]
"""Key -> the old and the new value."""

FREE = tuple(name for name in names(computes=False, repeats=True) if name != "data")
"""Settings that a resumed run takes without being allowed to: no number depends on them."""
COMMAND_LINE = "command line"
"""The layer of a request that was typed (:attr:`Request.layer`)."""
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
    recipe = find_recipe(path / "recipe.toml")
    again = attrs.evolve(
        request,
        method=attrs.evolve(recipe, name=facts["method"], data={**EARLIER, **recipe.data}),
        changes=attrs.evolve(request.changes, preset="none"),
    )
    run = assemble(again, prepare(again, settings), path)
    run.settings = attrs.evolve(run.settings, observe=asked_of(observers))
    before = found.state["identity"]
    # Runs of older versions lack some of these, which are then not compared.
    now = {key: value for key, value in run.identity.items() if key in before}
    found_now = differences(before, now)
    run.changed = {
        key: values for key, values in found_now.items() if not _is_newer(key, values, run.resolved)
    }
    refuse_others(run.changed, run.identity, request)
    ended = facts.get("finished") is not None
    if ended and found.state["step"] == run.last_step and not _to_measure(run):
        refuse_too_late(run, request)
    if set(run.changed) <= set(FREE):
        checkpoints.refuse(found.path, crafted.problems(found.state, run.plan.total_steps))
    run.step = run.saved_at = int(found.state["step"])
    if ended and _nothing_left(run):
        run.finished = way_on(run, request)
    notices = _restore(run, found, observers)
    owed = found.state.get("owed")
    if run.step % run.plan.steps_per_epoch == 0 or run.step == run.last_step:
        run.owed = owed
    if not run.finished:  # else nothing that was asked for applies any more
        run.resolved = attrs.evolve(run.resolved, notices=(*run.resolved.notices, *notices))
    if is_first():
        for folder in (path, path / checkpoints.FOLDER):
            sweep(folder)
        run.earlier = earlier_result(run, facts)
        most = owed["entries"] if owed and not run.finished else None
        run.metrics = cut_metrics(path, run.step, most, bool(run.finished))
    return run


def earlier_result(run: Run, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result that a run had when it was resumed after its end: step and kNN.

    It is in the metrics until the first such resume cuts them, and in ``run.json`` from then on.

    Args:
        run: the resumed one, its metrics not cut yet.
        facts: its ``run.json``, of before.
    """
    if facts["data"].get("fingerprint") != run.data.fingerprint:
        return None
    file = run.path / METRICS
    told = [] if run.finished or not file.exists() else readable_lines(file)
    found = [{"step": entry["step"], "knn": entry["knn"]} for entry in told if "knn" in entry]
    found += [c["result"] for c in reversed(facts.get("changes", [])) if c.get("result")]
    return next(iter(found), None)


def _nothing_left(run: Run) -> bool:
    """Whether a run that has ended once has nothing more to do."""
    return run.step >= run.last_step and not _to_measure(run) and _has_results(run)


def _to_measure(run: Run) -> bool:
    """Whether it is asked now that a run is evaluated, which it was not to be before."""
    return run.settings.evaluate and "evaluate" in run.changed


def _has_results(run: Run) -> bool:
    """Whether a finished run has its weights, and its accuracy if that was to be measured."""
    if not (run.path / "backbone.safetensors").exists():
        return False
    metrics = run.path / METRICS
    measured = run.settings.evaluate and run.data.labelled
    return not measured or (metrics.exists() and '"knn_top1"' in metrics.read_text("utf-8"))


def way_on(run: Run, request: Request) -> str:
    """Return a sentence that says that a run is finished, and on a line of its own how to go on."""
    total, epochs = run.plan.total_steps, run.resolved.training.epochs
    changes: dict[str, Any] = {}
    if run.step < total:
        done = (
            f"This run is finished: it was to end after step {run.step} of {total} (--max-steps). "
            "To go on to the end of its schedule:"
        )
    else:
        done = f"This run is finished: {total} steps, {epochs} epochs. To train it for longer:"
        changes = {"epochs": 2 * epochs, "allow_change": "epochs"}
    if run.settings.max_steps is not None:
        changes["max_steps"] = "none"
    return f"{done}\n  {_call(run, request, changes)}"


def _call(run: Run, request: Request, changes: Mapping[str, Any]) -> str:
    """Return a command, or in Python a call, that resumes a run with these changes."""
    if request.layer == COMMAND_LINE:
        words = [f"{_option(name)} {value}" for name, value in changes.items()]
        return " ".join(["coview train --resume", shlex.quote(str(run.path)), *words])
    given = ["data=data"] if run.data.name == OBJECT else []
    given += [f"{name}={value!r}" for name, value in changes.items()]
    return f"coview.train({', '.join([f'resume={str(run.path)!r}', *given])})"


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


def _is_newer(key: str, values: tuple[Any, Any], resolved: Resolved) -> bool:
    """Return whether a setting did not exist when the run was saved, and has its default now."""
    before, now = values
    table, _, name = key.partition(".")
    if before is not None or not name:
        return False
    return any(
        field.name == name.rpartition(".")[2] and plain(field.default) == now
        for part in resolved.parts.get(table, ())
        for field in attrs.fields(type(part.settings))
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def refuse_too_late(run: Run, request: Request) -> None:
    """Refuse changes of a run that has no step left to which they could apply.

    Raises:
        RequestError: there are such changes; a note has the request that would be accepted.
    """
    keys = [key for key in run.changed if key not in (*FREE, "data")]
    if not keys:
        return
    epochs = run.resolved.training.epochs
    error = RequestError(
        f"This run is finished: no step is left to which {' and '.join(keys)} could apply. Give "
        "it more epochs too."
    )
    longer: dict[str, Any] = {"epochs": 2 * epochs}
    if run.settings.max_steps is not None:
        longer["max_steps"] = "none"
    if request.layer == COMMAND_LINE:
        words = [word for name, value in longer.items() for word in (_option(name), str(value))]
        words += ["--allow-change", "epochs"]
        error.add_note(f"For example:\n  {shlex.join(['coview', *request.command[1:], *words])}")
    else:
        given = ", ".join(f"{name}={value!r}" for name, value in longer.items())
        allowed = [*request.allow_change, "epochs"]
        error.add_note(f"For example:\n  {given}, allow_change={allowed!r}")
    raise error


def refuse_others(found: Differences, identity: Mapping[str, Any], request: Request) -> None:
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
    keys = {*_flat(identity), *found}
    tables = {key.rpartition(".")[0] for key in keys if "." in key}
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
    if not wrong and not refused:
        return
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


def _mended(request: Request, keys: Sequence[str], wrong: Sequence[str]) -> str:
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
