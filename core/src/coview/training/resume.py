"""Going on with a run from its last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from coview.data.sources.arrays import OBJECT
from coview.distributed import is_first, wait
from coview.errors import CoviewError, RequestError
from coview.files import sweep
from coview.recipes.recipe import find_recipe
from coview.training import changes, checkpoints
from coview.training.assemble import assemble
from coview.training.directory import cut_metrics
from coview.training.observers.base import Watcher, restore
from coview.training.request import Request, prepare
from coview.training.run import Run


def resumed(request: Request, observers: list[Watcher]) -> Run:
    """Return a run that stands where its last checkpoint does.

    Raises:
        RequestError: there is none, or it is of another run.
        CoviewError: the checkpoint is damaged.
    """
    path = request.resume
    assert path is not None
    facts = read_facts(path / "run.json")
    found = checkpoints.newest(path)
    if request.data is None and facts["data"]["name"] == OBJECT:
        raise RequestError(
            "This run's data were a Python object: pass it again, "
            "coview.train(resume=..., data=...)."
        )
    resolved, source, options = prepare(_again(request, path, facts))
    run = assemble(request, resolved, source, options, path)
    before = found.state["identity"]
    # A run of a version that did not keep one of these has nothing to compare.
    now = {key: value for key, value in run.identity.items() if key in before}
    run.changed = changes.differences(before, now)
    changes.refuse_others(run.changed, request.allow_change, run.identity)
    run.step = run.saved_at = int(found.state["step"])
    notices = _restore(run, found, observers)
    run.resolved = attrs.evolve(run.resolved, notices=(*run.resolved.notices, *notices))
    if is_first():
        for folder in (path, path / checkpoints.FOLDER):
            sweep(folder)
        run.metrics = cut_metrics(path, run.step)
    return run


def _again(request: Request, path: Path, facts: dict[str, Any]) -> Request:
    """Return the request that the run was started by, with what is to change laid over it."""

    def given(value: Any, before: Any) -> Any:
        return before if value is None else value

    return attrs.evolve(
        request,
        method=attrs.evolve(find_recipe(path / "recipe.toml"), name=facts["method"]),
        # A Python object cannot be named; the fingerprint tells whether it is the same.
        data=given(request.data, facts["data"]["name"]),
        changes=attrs.evolve(request.changes, preset="none"),
        seed=given(request.seed, facts["seed"]),
        precision=given(request.precision, facts["precision"]),
    )


def _restore(run: Run, found: checkpoints.Found, observers: list[Watcher]) -> list[str]:
    """Put everything back; return what the user should know."""
    notices = changes.sentences(run.changed, run.step)
    notices += checkpoints.restore(found.state, run.method, run.optimizer, run.scaler, run.changed)
    restore({watcher.name: watcher for watcher in observers}, found.state.get("observers", {}))
    # Each process has read the file before the first one renames a damaged one.
    wait()
    damaged = checkpoints.put_aside(found) if is_first() else []
    return damaged + notices


def refuse_changes(request: Request) -> None:
    """Refuse what a run that goes on cannot take up, whoever allows it.

    Raises:
        RequestError: with the names.
    """
    given = [name for name in ("out", "init") if getattr(request, name) is not None]
    given += ["preset"] if request.changes.preset is not None else []
    if given:
        raise RequestError(
            f"A run is resumed as it was: {', '.join(given)} cannot be given beside resume."
        )


def read_facts(file: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises:
        RequestError: there is none.
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
