"""A run: the pieces that train together, and the directory they leave."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from coview.data.base import ImageData
from coview.data.loader import Batches
from coview.distributed import TIMEOUT, is_first
from coview.files import append_line
from coview.method.module import Method
from coview.plan import Plan
from coview.recipes.recipe import to_toml
from coview.recipes.resolve import Resolved
from coview.training.interrupts import Interrupts
from coview.training.observers.base import Watcher


@attrs.frozen(kw_only=True)
class Options:
    """What is asked of a run beside the recipe.

    Attributes:
        seed: of everything random.
        device, precision: resolved, see :mod:`coview.training.device`.
        workers: processes that decode images, for sets too large for memory.
        max_steps: stop after so many steps; schedules keep their full length.
        save_every: steps, or minutes as in ``"10m"``, between checkpoints.
        evaluate_every: epochs between kNN evaluations during training; 0: none.
        log_every: steps between logged metrics.
        evaluate: measure kNN accuracy before and after training.
        compile: compile networks, views and losses; see :mod:`coview.nn.compile`.
        timeout: seconds after which a process that hears nothing of another ends the run.
    """

    seed: int = 0
    device: torch.device = attrs.field(factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    workers: int = 0
    max_steps: int | None = None
    save_every: str = "10m"
    evaluate_every: int = 0
    log_every: int = 50
    evaluate: bool = True
    compile: bool = False
    timeout: float = TIMEOUT


@attrs.define(eq=False, kw_only=True)
class Run:
    """What observers get, and what :func:`coview.train` returns.

    Attributes:
        path: the run's directory.
        module: the method as it is called: itself, or wrapped for several processes.
        metrics: what was logged, as in ``metrics.jsonl``.
        step: optimiser steps done.
        whole: no step is half done, so that the state may be saved.
        observers: what watches the run, by name.
        changed: what a resumption changed, see :mod:`coview.training.changes`.
        saved_at: the step of the last checkpoint; None if there is none.
        interrupts: the signals that ask this run to end.
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
    options: Options
    peak: float
    backbone_meta: dict[str, Any]
    module: nn.Module
    step: int = 0
    whole: bool = True
    metrics: list[dict[str, Any]] = attrs.field(factory=list)
    observers: dict[str, Watcher] = attrs.field(factory=dict)
    changed: dict[str, tuple[Any, Any]] = attrs.field(factory=dict)
    saved_at: int | None = None
    interrupts: Interrupts = attrs.field(factory=Interrupts)

    @property
    def last_step(self) -> int:
        """The number of steps after which this run ends."""
        limit = self.options.max_steps
        return self.plan.total_steps if limit is None else min(limit, self.plan.total_steps)

    def log(self, **values: Any) -> None:
        """Append one object to ``metrics.jsonl``, with the step and epoch."""
        spe = self.plan.steps_per_epoch
        entry = {"step": self.step, "epoch": round(self.step / spe, 4), **values}
        self.metrics.append(entry)
        if not is_first():
            return
        append_line(self.path / "metrics.jsonl", json.dumps(entry))

    def apart(self) -> AbstractContextManager[None]:
        """A context in which gradients are not averaged over processes."""
        wrapped = isinstance(self.module, DistributedDataParallel)
        return self.module.no_sync() if wrapped else nullcontext()  # type: ignore[operator]

    def value(self, name: str) -> Any:
        """Return the last logged value of a metric, or None."""
        return next((m[name] for m in reversed(self.metrics) if name in m), None)

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change when a run is resumed, as plain values."""
        return {
            "recipe": to_toml(self.resolved.recipe),
            "data": self.data.fingerprint,
            "seed": self.options.seed,
            "precision": self.options.precision,
            "world_size": self.plan.world_size,
        }
