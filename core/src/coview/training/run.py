"""A run: everything that trains together, and the directory that it writes."""

from __future__ import annotations

import html
import json
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from coview.data.base import ImageData
from coview.data.loader import Batches
from coview.distributed import is_first
from coview.errors import RequestError
from coview.files import append_line
from coview.method.module import Method
from coview.nn.compile import compiled
from coview.plan import Plan
from coview.recipes.recipe import to_toml
from coview.recipes.resolve import Resolved
from coview.training.estimate import Estimate
from coview.training.interrupts import Interrupts
from coview.training.observers.base import Watcher
from coview.training.outcome import accuracies, told
from coview.training.run_settings import RunSettings
from coview.weights.card import WeightCard


@attrs.define(eq=False, kw_only=True, repr=False)
class Run:
    """A run, as observers get it and :func:`coview.train` returns it.

    Attributes:
        path: the run's directory.
        settings: the run's settings beside its recipe.
        device: where it computes.
        module: the module that is called: the method, or its wrapper for several processes.
        metrics: the logged entries, as in ``metrics.jsonl`` (:meth:`table` has them as a
            table): dictionaries with ``step``, ``epoch`` and what was measured there. Every
            ``log_every`` steps that is ``loss``, ``lr``, ``images_per_second`` and what the
            components log; with labels also ``raw_pixels_knn_top1`` and
            ``untrained_knn_top1`` before training, and ``knn_top1``, ``knn_top5`` and ``knn``
            (the result as of :func:`coview.evaluate`) after it, as shares from 0 to 1.
        step: optimiser steps done.
        whole: whether no step is half done, so that the state may be saved.
        observers: the run's observers, by name.
        changed: what a resume changed, see :mod:`coview.training.resume`.
        finished: of a run that was resumed after its end, the sentence that says so and how
            to go on; it stays as it is. Else an empty text.
        earlier: of a run that was resumed after its end, the result that it had then: ``step``
            and ``knn``.
        saved_at: the step of the last checkpoint; None if there is none.
        owed: what is needed to do an epoch's end, until that is done: ``entries``, the number
            of metrics before it, and ``means``, those of the epoch.
        hold: the lock on the directory, until training ends.
        interrupts: handles the signals that ask this run to end.
        reports: the files that installed packages wrote about it.
        estimate: the time and memory that a long step will take; None: not measured.
    """

    path: Path
    resolved: Resolved
    plan: Plan
    data: ImageData
    method: Method
    optimizer: Optimizer
    schedule: Any
    scaler: torch.amp.GradScaler
    batches: Batches
    settings: RunSettings
    device: torch.device
    peak: float
    card: WeightCard
    module: nn.Module
    step: int = 0
    whole: bool = True
    metrics: list[dict[str, Any]] = attrs.field(factory=list)
    observers: dict[str, Watcher] = attrs.field(factory=dict)
    changed: dict[str, tuple[Any, Any]] = attrs.field(factory=dict)
    finished: str = ""
    earlier: dict[str, Any] | None = None
    saved_at: int | None = None
    owed: dict[str, Any] | None = None
    hold: ExitStack = attrs.field(factory=ExitStack)
    interrupts: Interrupts = attrs.field(factory=Interrupts)
    reports: list[Path] = attrs.field(factory=list)
    estimate: Estimate | None = None

    def __repr__(self) -> str:
        return "\n".join(told(self))

    def _repr_html_(self) -> str:
        """The same for a notebook, the accuracies as a table."""
        rows = "".join(
            f"<tr><td>{label}</td><td>{100 * share:.1f} %</td></tr>"
            for label, share in accuracies(self)
        )
        table = f"<table><tr><th></th><th>kNN top-1</th></tr>{rows}</table>" if rows else ""
        return table.join(
            f"<div>{'<br>'.join(map(html.escape, lines))}</div>"
            for lines in (told(self)[:2], told(self)[3:])
        )

    @property
    def last_step(self) -> int:
        """The step after which this run ends."""
        limit = self.settings.max_steps
        return self.plan.total_steps if limit is None else min(limit, self.plan.total_steps)

    def log(self, **values: Any) -> None:
        """Append one object to ``metrics.jsonl``, with the step and epoch."""
        spe = self.plan.steps_per_epoch
        entry = {"step": self.step, "epoch": round(self.step / spe, 4), **values}
        self.metrics.append(entry)
        if not is_first():
            return
        append_line(self.path / "metrics.jsonl", json.dumps(entry))

    def compiling(self) -> AbstractContextManager[None]:
        """A context in which is compiled what this run compiles."""
        return compiled(self.settings.compile == "on", self.settings.compile != "off")

    def apart(self) -> AbstractContextManager[None]:
        """Return a context in which gradients are not averaged over processes."""
        wrapped = isinstance(self.module, DistributedDataParallel)
        return self.module.no_sync() if wrapped else nullcontext()  # type: ignore[operator]

    def value(self, name: str) -> Any:
        """Return the last logged value of a metric, or None."""
        return next((m[name] for m in reversed(self.metrics) if name in m), None)

    def table(self) -> Any:
        """Return ``metrics`` as a pandas ``DataFrame``, a row for each entry.

        Columns are ``step``, ``epoch``, ``loss``, ``lr`` and so on; nested values have names
        joined by a dot, such as ``knn.top1``. What an entry has not is NaN.

        Raises:
            RequestError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise RequestError(
                "run.table() needs pandas: pip install pandas. Without it, run.metrics has the "
                "same as a list of dictionaries."
            ) from None
        return pandas.json_normalize(self.metrics)

    @property
    def identity(self) -> dict[str, Any]:
        """The plain values that identify a run: kept in checkpoints, compared on resume.

        They are the recipe, the data's fingerprint, the number of processes and all
        run settings that a resumed run keeps.
        """
        return {
            "recipe": to_toml(self.resolved.recipe),
            "data": self.data.fingerprint,
            "world_size": self.plan.world_size,
            **self.settings.identity(),
        }

    @property
    def options(self) -> Any:
        """The settings under the names of version 0.1, for observers written for it."""
        return attrs.evolve(self.settings, device=self.device)  # type: ignore[arg-type]
