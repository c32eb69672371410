"""The one place that reaches into coview: runs step by step, and parts that it does not publish."""

# ruff: noqa: F401
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import coview
from benchmarks.runner import Once
from coview.components import EncoderComponent, declared
from coview.data.base import DataSettings, Split
from coview.data.decode import Files
from coview.data.loader import Batches
from coview.data.sources import open_source
from coview.data.sources.pack import Mapped
from coview.evaluation.baselines import RawPixels, calibrated
from coview.evaluation.knn import evaluate_knn
from coview.evaluation.neighbours import half_pays, nearest
from coview.evaluation.rows import InMemory
from coview.nn.backbones import BackboneSettings, resnet10_quarter
from coview.nn.compile import has_compiler
from coview.optim.schedules import Cosine
from coview.recipes.recipe import method_names
from coview.testing import resolved
from coview.training.loop import Metrics, _position, one_step
from coview.training.observers.collapse import CollapseObserver, measured
from coview_swav.sinkhorn import sinkhorn

SIDE, IMAGES, QUEUE = 32, 4096, 65536
# lightly's MoCo normalises the whole batch at once and does not shuffle: so does ours, here.
OWN = {"moco": {"encoder.norm_groups": 1, "target.shuffle": False, "negatives.size": QUEUE}}


def methods() -> list[str]:
    views = {name: resolved(name).part("views").factory for name in method_names()}
    return [name for name, made in views.items() if getattr(made, "takes", "images") == "images"]


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def images(count: int = IMAGES, side: int = SIDE) -> torch.Tensor:
    """Return noise that compresses to nothing and trains as well as anything for timing."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def started(method: str, batch_size: int, backbone: str | None, **asked: Any) -> Any:
    """Return a run of the method's small preset at its first step; no backbone: the preset's."""
    # Without ``compile`` a run of so few epochs compiles nothing, as views are in long ones.
    given = {"batch_size": batch_size, "epochs": 20, "max_steps": 0}
    given["backbone"] = fitting(method, backbone)
    given |= {"evaluate": False, "on_collapse": "ignore", "progress": False}
    small = "small" if "small" in coview.recipe(method).presets else None
    given |= {"data": images(), "set": OWN.get(method, {}), "preset": small, **asked}
    if "labels" in needs(method):
        given["data"] = (given["data"], torch.arange(len(given["data"])) % 10)
    with tempfile.TemporaryDirectory() as folder:  # a step writes nothing there
        run = coview.train(method, out=Path(folder) / "run", **given)
    run.method.train()
    return run


def fitting(method: str, backbone: str | None) -> str | None:
    """Return the network; None, which is the preset's, if the encoder is made for another kind."""
    encoder = resolved(method).part("encoder").factory
    kind = declared(encoder, EncoderComponent, "example_backbone")
    return None if kind or method.startswith("cpc") else backbone


def needs(method: str) -> set[str]:
    """Return the fields that a method's components need beside images."""
    parts = [part for parts in resolved(method).parts.values() for part in parts]
    made = [part.factory for part in parts if isinstance(part.factory, type)]
    return {name for one in made for name in getattr(one, "needs_fields", ())}


def whole(run: Any) -> Once:
    """Return the engine's step, with its batch and its metrics."""
    batches, metrics = endless(run), Metrics()

    def step() -> None:
        one_step(run, next(batches), metrics)
        if run.step % run.settings.log_every == 0:
            metrics.read()

    return step


def endless(run: Any) -> Iterator[Any]:
    return (batch for epoch in itertools.count() for batch in run.batches.epoch(epoch))


def views(run: Any) -> Once:
    batch, hook = next(run.batches.epoch(0)), run.method.manager.hook

    def once() -> Any:
        with torch.no_grad(), run.compiling():
            return hook.generate_views(batch=batch, step=_position(run))

    return once


def bare(run: Any) -> Once:
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
