"""What a user asked of a run, resolved and validated before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.components import IMAGES, DataSource, ViewsComponent, declared
from coview.data.base import Source
from coview.data.sources import open_source
from coview.errors import RequestError
from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import Recipe
from coview.recipes.resolve import Part, Resolved
from coview.recipes.run_settings import RunSettings, run_table
from coview.training.device import pick_device, pick_precision
from coview.training.interrupts import Clock


@attrs.frozen(kw_only=True, eq=False)
class Request:
    """What a user asked for; see :func:`coview.train` for the meaning of each.

    Attributes:
        method: a method's name, a TOML file, or a recipe.
        data: a Python object in place of the name in ``settings``.
        changes: what is laid over the recipe.
        settings: run settings that were given, by name (:class:`RunSettings`); one that
            is not there, or None, was not given.
        out, resume: directories.
        allow_change: what may differ from the run that is resumed.
        backbone, views: Python objects in place of named ones.
        observe: observers, by name or ready-made.
        on_collapse: as ``--on-collapse`` has it.
        command: how the run was started, for its records.
        layer: how the origin of the changes is called.
    """

    method: str | Path | Recipe = "simclr"
    data: Any = None
    changes: Changes = attrs.field(factory=Changes)
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    out: Path | None = None
    resume: Path | None = None
    allow_change: tuple[str, ...] = ()
    backbone: nn.Module | None = None
    views: Callable[[Tensor], Tensor] | None = None
    observe: tuple[Any, ...] = ()
    on_collapse: str | None = None
    command: tuple[str, ...] = ()
    layer: str = "Python"


@attrs.frozen(eq=False)
class Prepared:
    """A request that is known to be right.

    Attributes:
        resolved: the recipe.
        source: of the data, not loaded yet.
        settings: the run's; ``compile`` is decided when the length of the run is known.
        device: what ``settings.device`` means here.
    """

    resolved: Resolved
    source: Source
    settings: RunSettings
    device: torch.device


def prepare(request: Request, before: Mapping[str, Any] | None = None) -> Prepared:
    """Resolve and validate; build and load nothing.

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
        # A run's recipe is resolved already; a preset would be laid over it twice.
        changes = attrs.evolve(changes, preset="none")
    resolved = configure(request.method, source.native_size(), changes, request.layer)
    refuse_other_kind(resolved.part("views"), source)
    settings = attrs.evolve(
        settings,
        precision=pick_precision(settings.precision, device),
        preset=settings.preset if table else resolved.preset or "none",
    )
    return Prepared(resolved, source, settings, device)


def refuse_other_kind(part: Part, source: Any) -> None:
    """Refuse data that the views do not take.

    Args:
        part: the views.
        source: of the data.

    Raises:
        RequestError: with what would fit, as far as the two say it.
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
        f"views {part.name!r} take {takes}, but the data are {gives}: use {', or '.join(ways)}."
    )
