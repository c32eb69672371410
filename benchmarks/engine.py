"""The one place that reaches into coview: runs step by step, and parts that it does not publish.

All else here uses what ``coview``, ``coview.views`` and ``coview.testing`` offer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import coview
from coview.data.base import DataSettings as DataSettings
from coview.data.base import Split as Split
from coview.data.decode import Files as Files
from coview.data.loader import Batches as Batches
from coview.data.sources.pack import Mapped as Mapped
from coview.evaluation.neighbours import half_pays as half_pays
from coview.evaluation.neighbours import nearest as nearest
from coview.evaluation.rows import InMemory as InMemory
from coview.nn.compile import has_compiler as has_compiler
from coview.recipes.recipe import method_names
from coview.testing import resolved
from coview.training.loop import Metrics, _position, _step
from coview.training.observers.collapse import CollapseObserver as CollapseObserver
from coview.training.observers.collapse import measured as measured
from coview_swav.sinkhorn import sinkhorn as sinkhorn

SIDE, IMAGES, QUEUE = 32, 4096, 65536
# lightly's MoCo normalises the whole batch at once and does not shuffle: so does ours, here.
OWN = {"moco": {"encoder.norm_groups": 1, "target.shuffle": False, "negatives.size": QUEUE}}
STEP = Callable[[], Any]


def methods() -> list[str]:
    """Return every installed method of images."""

    def takes(name: str) -> str:
        return getattr(resolved(name).part("views").factory, "takes", "images")

    return [name for name in method_names() if takes(name) == "images"]


def images(count: int = IMAGES, side: int = SIDE) -> torch.Tensor:
    """Return noise that compresses to nothing and trains as well as anything for timing."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def started(
    method: str,
    batch_size: int,
    backbone: str | None,
    *,
    pixels: Any = None,
    sets: dict[str, Any] | None = None,
    **asked: Any,
) -> Any:
    """Return a run of the method's small preset at its first step.

    Args:
        method, batch_size, backbone: of the run; no backbone: the preset's.
        pixels: uint8 images to train on, in place of :func:`images`.
        sets: settings, in place of OWN's.
        **asked: more of ``coview.train``. Without ``compile`` a run of so few epochs (20)
            compiles nothing; views are compiled by default in long ones.
    """
    with tempfile.TemporaryDirectory() as folder:  # a step writes nothing there
        run = coview.train(
            method,
            images() if pixels is None else pixels,
            backbone=backbone,
            batch_size=batch_size,
            set=OWN.get(method, {}) if sets is None else sets,
            out=Path(folder) / "run",
            evaluate=False,
            on_collapse="ignore",
            progress=False,
            max_steps=0,
            **{"epochs": 20, **asked},
        )
    run.method.train()
    return run


def whole(run: Any) -> STEP:
    """Return the engine's step, with its batch and its metrics."""
    batches, metrics = endless(run), Metrics()

    def step() -> None:
        _step(run, next(batches), metrics)
        if run.step % run.settings.log_every == 0:
            metrics.read()

    return step


def endless(run: Any) -> Iterator[Any]:
    """Yield batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from run.batches.epoch(epoch)
        epoch += 1


def views(run: Any) -> STEP:
    """Return what makes the views of one batch."""
    batch, hook = next(run.batches.epoch(0)), run.method.manager.hook

    def once() -> Any:
        with torch.no_grad(), run.compiling():
            return hook.generate_views(batch=batch, step=_position(run))

    return once


def bare(run: Any) -> STEP:
    """Return forward and backward of the method's own networks, and nothing else."""
    method, batch = run.method, next(run.batches.epoch(0))
    hook = method.manager.hook
    with torch.no_grad():
        made = hook.generate_views(batch=batch, step=_position(run))
    shared = hasattr(method.components["target"], "network")

    def step() -> None:
        given = {"views": made, "batch": batch, "step": _position(run)}
        for parameter in method.parameters():
            parameter.grad = None
        with method.autocast():
            encoded = hook.encode(**given)
            if shared:
                hook.encode_targets(encoder=method.encoder, encoded=encoded, **given)
        torch.stack([query.sum() for query in encoded.queries.values()]).sum().backward()

    return step
