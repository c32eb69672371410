"""Continue a run from its last checkpoint, possibly with changes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from coview.data.sources.arrays import OBJECT
from coview.distributed import is_first, wait
from coview.errors import RequestError
from coview.files import sweep
from coview.recipes.configure import Changes
from coview.recipes.recipe import find_recipe
from coview.recipes.resolve import Resolved
from coview.recipes.tables import EARLIER
from coview.settings import plain
from coview.training import checkpoints, crafted
from coview.training.build import assemble
from coview.training.differences import (
    COMMAND_LINE,
    FREE,
    differences,
    not_allowed,
    refuse_others,
    sentences,
)
from coview.training.directory import METRICS, cut_metrics, readable_lines
from coview.training.observers.base import Watcher, restore
from coview.training.request import Request, prepare
from coview.training.run import Run
from coview.training.run_settings import names, run_table
from coview.training.taken import read_facts


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
    ended = facts.get("finished") is not None
    late = ended and found.state["step"] == run.last_step
    # Asked for now, and no difference of machines or versions.
    if late and request.changes != Changes() and "epochs" not in run.changed:
        refuse_too_late(run, request)
    refuse_others(run.changed, run.identity, request)
    if late:
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
    return run.step >= run.last_step and _has_results(run)


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
    wrong, refused = not_allowed(run.changed, run.identity, request)
    if wrong:
        return  # is said first
    error = RequestError(
        f"This run is finished: no step is left to which {' and '.join(keys)} could apply. Give "
        "it more epochs too."
    )
    longer: dict[str, Any] = {"epochs": 2 * epochs}
    if run.settings.max_steps is not None:
        longer["max_steps"] = "none"
    if request.layer == COMMAND_LINE:
        words = [word for name, value in longer.items() for word in (_option(name), str(value))]
        for key in (*refused, "epochs"):
            words += ["--allow-change", key]
        error.add_note(f"For example:\n  {shlex.join(['coview', *request.command[1:], *words])}")
    else:
        given = ", ".join(f"{name}={value!r}" for name, value in longer.items())
        allowed = [*request.allow_change, *refused, "epochs"]
        error.add_note(f"For example:\n  {given}, allow_change={allowed!r}")
    raise error
