"""A user's request for a run, resolved and validated before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from coview.components import IMAGES, DataSource, ViewsComponent, declared
from coview.data.base import Source
from coview.data.sources import open_source
from coview.errors import RequestError
from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import Recipe
from coview.recipes.resolve import Part, Resolved
from coview.training import threads
from coview.training.device import pick_device, pick_precision
from coview.training.interrupts import Clock
from coview.training.run_settings import RunSettings, run_table


@attrs.frozen(kw_only=True, eq=False)
class Request:
    """A user's request; see :func:`coview.train` for the meaning of each attribute.

    Attributes:
        method: a method's name, a TOML file, or a recipe.
        data: a Python object, instead of the name in ``settings``.
        changes: changes to the recipe.
        settings: the run settings that were given, by name (:class:`RunSettings`); one that
            is missing, or None, was not given.
        out, resume: directories.
        allow_change: what may differ from the run that is resumed.
        backbone, views: Python objects, instead of named ones.
        observe: observers: names or objects.
        on_collapse: a value of ``--on-collapse``.
        command: the command that started the run, for its records.
        layer: the origin that is shown for the changes.
    """

    method: str | Path | Recipe = "simclr"
    data: Any = None
    changes: Changes = attrs.field(factory=Changes)
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    out: Path | None = None
    resume: Path | None = None
    allow_change: tuple[str, ...] = ()
    backbone: nn.Module | None = None
    views: Any = None
    observe: tuple[Any, ...] = ()
    on_collapse: str | None = None
    command: tuple[str, ...] = ()
    layer: str = "Python"


@attrs.frozen(eq=False)
class Prepared:
    """A validated request.

    Attributes:
        resolved: the recipe.
        source: the source of the data, which are not loaded yet.
        settings: the run's settings; ``compile`` is decided once the run's length is known.
        device: the device that ``settings.device`` names on this machine.
    """

    resolved: Resolved
    source: Source
    settings: RunSettings
    device: torch.device


def prepare(request: Request, before: Mapping[str, Any] | None = None) -> Prepared:
    """Resolve and validate a request, without building or loading anything.

    Args:
        request: what is asked for now.
        before: settings of the run that is resumed, or of the ``recipe.toml`` that is
            repeated; None: read here.

    Raises:
        RequestError: with every problem found.
    """
    table = run_table(request.method) if before is None else before
    settings = RunSettings.of(table, request.settings)
    Clock.of(settings.save_every, 0)
    device = pick_device(settings.device)
    data = request.data if request.data is not None else settings.data or "digits"
    source = open_source(data, settings.download)
    changes = request.changes
    if changes.preset is None and table:
        # A run's recipe is already resolved; a preset would be applied twice.
        changes = attrs.evolve(changes, preset="none")
    images = declared(source, DataSource, "count")()
    resolved = configure(request.method, source.native_size(), changes, request.layer, images)
    refuse_other_kind(resolved.part("views"), source)
    settings = attrs.evolve(
        settings,
        precision=pick_precision(settings.precision, device),
        threads=threads.chosen(settings.threads, device),
        preset=settings.preset if table else resolved.preset or "none",
    )
    return Prepared(resolved, source, settings, device)


def refuse_other_kind(part: Part, source: Any) -> None:
    """Refuse data that the views cannot take.

    Args:
        part: the views component.
        source: the source of the data.

    Raises:
        RequestError: the message suggests what would fit, if the two declare it.
    """

    def of_views(name: str) -> Any:
        return declared(part.factory, ViewsComponent, name)

    takes, gives = of_views("takes"), declared(source, DataSource, "gives")
    if takes == gives:
        return
    example = of_views("example_data")
    wanted = f"--data {example}" if example else f"data of {takes}"
    ways = [wanted if takes != IMAGES else "a data set of images"]
    if method := declared(source, DataSource, "example_method"):
        ways.append(f"the method {method}")
    raise RequestError(
        f"views {part.name!r} take {takes}, but the data are {gives}. Use {', or '.join(ways)}."
    )
