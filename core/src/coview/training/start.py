"""From a request to a run that is ready for its first (or next) step."""

from __future__ import annotations

from coview.distributed import is_first, is_loss_of_another, join
from coview.errors import CoviewError, RequestError
from coview.recipes.resolve import CORE
from coview.training.assemble import assemble
from coview.training.directory import new_directory, refuse_taken, write_changes, write_start
from coview.training.loop import save
from coview.training.observers.bad_images import BadImageWatch
from coview.training.observers.base import OF_THE_TERMINAL, Watcher, watchers
from coview.training.observers.collapse import watched
from coview.training.request import Request, prepare
from coview.training.resume import read_facts, refuse_changes, resumed
from coview.training.run import Run

__all__ = ["Request", "prepare", "start"]


def start(request: Request) -> Run:
    """Return a run that is ready: data loaded, method built, directory made.

    Raises:
        RequestError: the request is wrong.
    """
    join(request.device, request.timeout)
    try:
        return _started(request)
    except RuntimeError as error:
        if is_loss_of_another(error):
            raise CoviewError(
                "Another process of this run ended, or did not answer, before the first step."
            ) from error
        raise


def _started(request: Request) -> Run:
    if request.resume is not None:
        refuse_changes(request)
    elif request.allow_change:
        raise RequestError("allow_change is for a run that is resumed: give resume too.")
    observers = _watchers(request)
    run = _new(request) if request.resume is None else resumed(request, observers)
    for watcher in observers:
        run.method.observe(watcher.observer, watcher.name, watcher.package)
    speak = any(watcher.name == OF_THE_TERMINAL for watcher in observers)
    run.method.observe(BadImageWatch(speak), "bad-images", CORE)
    run.observers = {watcher.name: watcher for watcher in observers}
    if request.resume is None and is_first():
        # Only now: a run that cannot start must not take the directory.
        write_start(run, list(request.command))
    if run.changed:
        # With the checkpoint first: it is what the recipe is compared with, next time.
        save(run)
        if is_first():
            write_changes(run, list(request.command))
    return run


def _watchers(request: Request) -> list[Watcher]:
    """Return the observers asked for, before them those that a resumed run had."""
    facts = request.resume / "run.json" if request.resume is not None else None
    before = read_facts(facts).get("observers", []) if facts is not None else []
    asked = [item for item in request.observe if is_first() or item != OF_THE_TERMINAL]
    fresh = request.resume is None
    return watchers(watched([*before, *asked], request.on_collapse, fresh))


def _new(request: Request) -> Run:
    if request.out is not None and is_first():
        refuse_taken(request.out)
    resolved, source, options = prepare(request)
    if request.out is not None and is_first():
        new_directory(request.out)
    return assemble(request, resolved, source, options, request.out)
