"""What a user asked of a run, resolved and validated before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor, nn

from coview.data.base import Source
from coview.data.kinds import refuse_other_kind
from coview.data.sources import open_source
from coview.distributed import TIMEOUT
from coview.errors import RequestError
from coview.recipes.configure import SEEDS, Changes, configure, run_table
from coview.recipes.recipe import Recipe
from coview.recipes.resolve import Resolved
from coview.training.clock import Clock
from coview.training.device import pick_device, pick_precision
from coview.training.run import Options


@attrs.frozen(kw_only=True, eq=False)
class Request:
    """What a user asked for; see :func:`coview.train` for the meaning of each."""

    method: str | Path | Recipe = "simclr"
    data: Any = None
    changes: Changes = attrs.field(factory=Changes)
    out: Path | None = None
    backbone: nn.Module | None = None
    views: Callable[[Tensor], Tensor] | None = None
    init: Path | None = None
    resume: Path | None = None
    device: str = "auto"
    precision: str | None = None
    compile: bool = False
    workers: int | None = None
    seed: int | None = None
    max_steps: int | None = None
    save_every: str = "10m"
    evaluate_every: int = 0
    evaluate: bool = True
    log_every: int = 50
    timeout: float = TIMEOUT
    allow_change: tuple[str, ...] = ()
    download: bool = False
    observe: tuple[Any, ...] = ()
    on_collapse: str | None = None
    command: tuple[str, ...] = ()
    layer: str = "Python"


def prepare(request: Request) -> tuple[Resolved, Source, Options]:
    """Resolve and validate; build and load nothing.

    Raises:
        RequestError: with every problem found.
    """
    table = run_table(request.method)
    Clock.of(request.save_every, 0)
    device = pick_device(request.device)
    data = request.data if request.data is not None else table.get("data", "digits")
    source = open_source(data, request.download)
    changes = request.changes
    if changes.preset is None and table:
        # A run's recipe is resolved already; a preset would be laid over it twice.
        changes = attrs.evolve(changes, preset="none")
    resolved = configure(request.method, source, changes, request.layer)
    views = resolved.part("views")
    refuse_other_kind(views.factory, views.name, source)
    seed = _first(request.seed, table.get("seed"), 0)
    if not SEEDS[0] <= seed <= SEEDS[1]:
        raise RequestError(f"seed must be {SEEDS[0]} to {SEEDS[1]}, not {seed}.")
    options = Options(
        seed=seed,
        device=device,
        precision=pick_precision(_first(request.precision, table.get("precision"), "auto"), device),
        workers=_first(request.workers, table.get("workers"), 0),
        max_steps=_first(request.max_steps, table.get("max_steps"), None),
        save_every=request.save_every,
        evaluate_every=request.evaluate_every,
        log_every=request.log_every,
        evaluate=request.evaluate,
        compile=request.compile,
        timeout=request.timeout,
    )
    return resolved, source, options


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
