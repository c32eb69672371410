"""Processes that torchrun starts anew after one of them ended (``--max-restarts``).

torchrun repeats the command that began the run; here it becomes one that goes on with it.
"""

from __future__ import annotations

import attrs

from coview.errors import RequestError
from coview.recipes.configure import Changes
from coview.torchrun import most_restarts, restarts
from coview.training.checkpoints import FOLDER
from coview.training.observers.base import OF_THE_TERMINAL
from coview.training.request import Request
from coview.training.taken import read_facts

KEPT = ("download",)
"""Settings that a resumed run does not repeat by itself."""


def restarted(request: Request) -> Request:
    """Return the request; after a restart, one for the run that the same command has begun.

    All processes decide alike, before they have joined: by what lies in the run's directory.

    Raises:
        RequestError: no directory was named in which a restart would find the run.
    """
    if request.resume is not None or not most_restarts():
        return request
    if request.out is None:
        raise RequestError(
            "Processes that torchrun may start anew (--max-restarts) must find their run again: "
            "add --out DIRECTORY."
        )
    facts = request.out / "run.json"
    if not restarts() or not facts.exists():
        return request
    if read_facts(facts)["command"] != list(request.command):
        return request  # another run, which is then left alone
    if not any((request.out / FOLDER).glob("*.pt")):
        # It ended before it had saved anything. Others may be looking for the same files.
        for name in ("run.json", "recipe.toml"):
            (request.out / name).unlink(missing_ok=True)
        return request
    return attrs.evolve(
        request,
        method="",
        changes=Changes(),
        settings={name: value for name, value in request.settings.items() if name in KEPT},
        out=None,
        resume=request.out,
        observe=tuple(
            item for item in request.observe if item == OF_THE_TERMINAL or not isinstance(item, str)
        ),
    )
