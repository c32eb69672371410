"""A run: the pieces that train together, and the directory they leave."""

from __future__ import annotations

import json
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from coview.data.base import ImageData
from coview.data.loader import Batches
from coview.errors import CoviewError, RequestError
from coview.files import write_json, write_text
from coview.method import Method
from coview.plan import Plan
from coview.recipes import to_toml
from coview.resolve import CORE, Resolved
from coview.training.distributed import is_first
from coview.training.observers import OF_THE_TERMINAL, Watcher

LIBRARIES = ("torch", "torchvision", "kornia", "timm", "pluggy")


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
        compile: compile the backbone.
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
        with _writable(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")

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
            "world_size": self.plan.world_size,
        }


def _writable(path: Path, mode: str) -> Any:
    try:
        return path.open(mode, encoding="utf-8")
    except OSError as error:
        raise CoviewError(f"{path} could not be written: {error.strerror}.") from error


def refuse_taken(path: Path) -> None:
    """Refuse a directory that holds a run already.

    Raises:
        RequestError: it does.
    """
    if (path / "run.json").exists() or (path / "recipe.toml").exists():
        raise RequestError(
            f"{path} already holds a run. Go on with it by: coview train --resume {path}, or "
            "choose another --out."
        )


def new_directory(path: Path) -> None:
    """Make a run's directory.

    Raises:
        RequestError: it holds a run already, or cannot be made.
    """
    refuse_taken(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{path} cannot be a run's directory: {error.strerror}.") from error


def default_directory(recipe: str, data: str) -> Path:
    """Return ``runs/METHOD-DATA-TIME``, a name that is not taken."""
    plain = "".join(c if c.isalnum() else "-" for c in data).strip("-")[-40:]
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = base = Path("runs") / f"{recipe or 'method'}-{plain}-{time}"
    number = 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def write_start(run: Run, command: list[str]) -> None:
    """Write ``recipe.toml`` and ``run.json`` before the first step."""
    options = run.options
    table = {
        "data": run.data.name,
        "seed": options.seed,
        "precision": options.precision,
        "workers": options.workers,
        "preset": run.resolved.preset or "none",
    }
    if options.max_steps is not None:
        table["max_steps"] = options.max_steps
    write_text(run.path / "recipe.toml", to_toml(run.resolved.recipe, run=table))
    write_json(run.path / "run.json", {**_facts(run, command), "finished": None})


def write_end(run: Run) -> None:
    """Add the end's time to ``run.json``."""
    path = run.path / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**facts, "finished": _now(), "steps": run.step})


def _facts(run: Run, command: list[str]) -> dict[str, Any]:
    used = {part.package for parts in run.resolved.parts.values() for part in parts}
    device = run.options.device
    cuda = device.type == "cuda"
    return {
        "command": command,
        "method": run.resolved.recipe.name,
        "seed": run.options.seed,
        "data": {
            "name": run.data.name,
            "fingerprint": run.data.fingerprint,
            "train_images": len(run.data.train),
            "notes": list(run.data.notes),
        },
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "precision": run.options.precision,
        "packages": {name: metadata.version(name) for name in sorted(used | {CORE})},
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "python": sys.version.split()[0],
        "observers": [
            watcher.asked
            for name, watcher in run.observers.items()
            if watcher.asked and name != OF_THE_TERMINAL
        ],
        "notices": list(run.resolved.notices),
        "started": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def cut_metrics(path: Path, step: int) -> list[dict[str, Any]]:
    """Cut ``metrics.jsonl`` back to what was logged up to ``step``; return that.

    A run that goes on from its start measures its baselines again.
    """
    file = path / "metrics.jsonl"
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break  # the line that was being written when the run died
        if entry["step"] <= step and step > 0 and "knn" not in entry:
            kept.append(entry)
    write_text(file, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept
