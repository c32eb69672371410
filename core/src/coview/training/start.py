"""Prepare a run for its first (or next) step."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from coview.distributed import from_first, is_first, is_loss_of_another, join
from coview.errors import CoviewError, RequestError
from coview.recipes.resolve import CORE
from coview.training import threads
from coview.training.build import assemble
from coview.training.directory import (
    clear_failure,
    hold,
    made,
    new_directory,
    write_changes,
    write_start,
)
from coview.training.elastic import restarted
from coview.training.estimate import estimate
from coview.training.loop import save
from coview.training.observers.bad_images import BadImageWatch
from coview.training.observers.base import OF_THE_TERMINAL, Watcher, watchers
from coview.training.observers.collapse import watched
from coview.training.request import Request, prepare
from coview.training.resume import asked_of, refuse_changes, resumed, settings_before
from coview.training.run import Run
from coview.training.run_settings import RunSettings, run_table
from coview.training.taken import read_facts, refuse_taken

__all__ = ["Request", "prepare", "rehearse", "start"]


def start(request: Request) -> Run:
    """Return a run that is ready to train: data loaded, method built, directory made.

    Raises:
        RequestError: the request is wrong.
    """
    request = restarted(request)
    before = _before(request)
    settings = RunSettings.of(before, request.settings)
    join(settings.device, settings.timeout)
    try:
        with ExitStack() as held:
            held.enter_context(threads.using(settings.threads))
            run = _started(request, before, held)
            run.hold = held.pop_all()
            return run
    except RuntimeError as error:
        if is_loss_of_another(error):
            raise CoviewError(
                "Another process of this run ended, or did not answer, before the first step."
            ) from error
        raise


def _before(request: Request) -> dict[str, Any]:
    """Return the settings of the resumed run, or those in a run's ``recipe.toml``."""
    if request.resume is None:
        return run_table(request.method)
    refuse_changes(request)
    return settings_before(request.resume, read_facts(request.resume / "run.json"))


def _started(request: Request, before: dict[str, Any], held: ExitStack) -> Run:
    if request.resume is None and request.allow_change:
        raise RequestError("allow_change is only for a resumed run: add resume.")
    observers = _watchers(request, before)
    if request.resume is not None:
        _keep_others_out(request.resume, held)
        run = resumed(request, observers, before)
        if is_first():
            clear_failure(request.resume)
    else:
        run = _new(request, observers, before, held)
    for watcher in observers:
        run.method.observe(watcher.observer, watcher.name, watcher.package)
    speak = any(watcher.name == OF_THE_TERMINAL for watcher in observers)
    run.method.observe(BadImageWatch(speak), "bad-images", CORE)
    run.observers = {watcher.name: watcher for watcher in observers}
    if request.resume is None and is_first():
        # Only now, so that a run that cannot start leaves no directory.
        write_start(run, list(request.command))
    if run.changed and not run.finished:
        # First the checkpoint, with which the next resume compares the recipe.
        save(run)
        if is_first():
            write_changes(run, list(request.command))
    return run


def _watchers(request: Request, before: dict[str, Any]) -> list[Watcher]:
    """Return the resumed run's observers, then those requested now."""
    had = before.get("observe", ())
    asked = [item for item in request.observe if is_first() or item != OF_THE_TERMINAL]
    return watchers(watched([*had, *asked], request.on_collapse, request.resume is None))


def _keep_others_out(path: Path, held: ExitStack) -> None:
    """Lock a run's directory while ``held`` is open."""
    if is_first():
        held.enter_context(hold(path))


def _new(
    request: Request, observers: list[Watcher], before: dict[str, Any], held: ExitStack
) -> Run:
    if request.out is not None and is_first():
        refuse_taken(request.out)
    prepared = prepare(request, before)
    prepared = attrs.evolve(
        prepared, settings=attrs.evolve(prepared.settings, observe=asked_of(observers))
    )
    if request.out is not None and is_first():
        new_directory(request.out)
        _keep_others_out(request.out, held)
        refuse_taken(request.out)
    run = assemble(request, prepared, request.out)
    if request.out is None:
        run.path = from_first(made(run.path) if is_first() else None)
        _keep_others_out(run.path, held)
    return run


def rehearse(request: Request, here: bool = True) -> Run:
    """Return a run as :func:`start` would, without observers and without writing anything.

    Args:
        request: what was asked for.
        here: it would run on this machine: its step is measured, and cut to what fits here.

    Raises:
        RequestError: the request is wrong.
    """
    if request.out is not None:
        refuse_taken(request.out)
    before = run_table(request.method)
    with threads.using(RunSettings.of(before, request.settings).threads):
        run = assemble(request, prepare(request, before), request.out, here)
        if here:
            run.estimate = run.estimate or estimate(run)
    return run
