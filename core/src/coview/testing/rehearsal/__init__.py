"""A training step as a CUDA device would do it, on a machine without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs
import torch

from coview.components import ViewsComponent, declared
from coview.evaluation.knn import vote
from coview.method.module import build_method
from coview.optim.groups import make_optimizer
from coview.plan import Plan
from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import Recipe, find_recipe
from coview.recipes.resolve import Resolved
from coview.records import Batch
from coview.testing.errors import ConformanceError
from coview.testing.rehearsal.pretended import Pretended, pretended_cuda
from coview.testing.subject import made_up_fields
from coview.training.device import autocasting
from coview.training.loop import Metrics, _whole_step
from coview.training.run import Run
from coview.training.run_settings import RunSettings
from coview.weights.card import card_of
from coview.weights.exported import export

DATASET, STEPS_PER_EPOCH, TOTAL_STEPS = 1_281_167, 1_000, 100_000
"""As of ImageNet, so that memory banks and queues have their real size."""
IMAGE, SMALL_IMAGE = 256, 32
EVALUATED, CLASSES, NEIGHBOURS = 512, 1_000, 200


@attrs.frozen
class Rehearsed:
    """What a rehearsal saw.

    Attributes:
        method: the method's name.
        preset: the preset; ``none`` is the paper's recipe.
        precision: fp32, bf16 or fp16.
        accumulate: micro-batches of a step.
        operations: operations that the device is given in a step.
        bytes: the most that tensors on the device take at once in the last step: weights,
            gradients, the optimiser's state (from the second step on), queues and banks, views
            and what the networks keep for the backward pass.
    """

    method: str
    preset: str
    precision: str
    accumulate: int
    operations: int
    bytes: int


def rehearse(
    method: str | Recipe,
    *,
    preset: str = "none",
    precision: str = "bf16",
    accumulate: int | None = None,
    steps: int = 1,
    evaluate: bool = True,
    **changes: Any,
) -> Rehearsed:
    """Train a method for a step, and evaluate it, on a CUDA device that is not there.

    Shapes are those of a real run: the recipe's batch, its views and networks; tensors hold no
    numbers, so it takes seconds and next to no memory. What a device would refuse is an error,
    and so is what makes the host wait for it::

        from coview.testing import rehearse

        rehearse("my-method", preset="small", precision="fp16", accumulate=2)

    Args:
        method: a method's name, a TOML file, or a recipe.
        preset: the preset; ``none`` is the recipe as written.
        precision: fp32, bf16 or fp16 (with a gradient scaler).
        accumulate: micro-batches of a step; None: the recipe's.
        steps: optimiser steps.
        evaluate: also make evaluation views, features, and a kNN vote.
        **changes: changes to the recipe, as in :func:`coview.train`.

    Raises:
        ConformanceError: the host would wait for the device, numbers lie on the wrong one or
            are float64, or a component replaces a buffer. The message says where.
    """
    recipe = method if isinstance(method, Recipe) else find_recipe(method)
    if accumulate is not None:
        changes["accumulate"] = accumulate
    resolved = configure(recipe, None, Changes(preset=preset, **changes), "rehearsal")
    with pretended_cuda() as mode:
        run = _run(resolved, _plan(resolved), precision, mode)
        batch = _batch(resolved, run.plan, mode)
        count, peak = train(run, batch, mode, steps), mode.memory.most
        if evaluate:
            _evaluate(run, batch, mode)
    parts = resolved.training.accumulate
    return Rehearsed(recipe.name, preset, precision, parts, count, peak)


def planned_bytes(resolved: Resolved, plan: Plan, precision: str = "bf16") -> int:
    """Return the most bytes that tensors on a CUDA device take at once in a step of a run.

    The next batch, which is on its way while a step runs, is among them; CUDA itself, the
    scratch memory of its libraries and gaps between tensors are not. Nothing is compiled.

    Args:
        resolved: the recipe.
        plan: the run's sizes.
        precision: fp32, tf32, bf16 or fp16.

    Raises:
        ConformanceError: see :func:`rehearse`.
    """
    with pretended_cuda() as mode:
        run = _run(resolved, plan, precision, mode)
        batch, following = (_batch(resolved, plan, mode) for _ in range(2))
        train(run, batch, mode, steps=2)
        del following
        return mode.memory.most


def train(run: Run, batch: Batch, mode: Pretended, steps: int = 1) -> int:
    """Do a few steps of a run; return how many operations the last one gave the device.

    Raises:
        ConformanceError: see :func:`rehearse`.
    """
    before = dict(run.method.named_buffers())
    begun = 0
    for _ in range(steps):
        begun = mode.operations
        mode.memory.begin()
        _whole_step(run, batch, Metrics())
    for name, buffer in run.method.named_buffers():
        if buffer is not before.get(name):
            raise ConformanceError(
                f"the buffer {name} is another tensor after a step: write into it (copy_), or a "
                "captured step goes on with the old one"
            )
    return mode.operations - begun


def _plan(resolved: Resolved) -> Plan:
    side = resolved.data.size or (SMALL_IMAGE if resolved.preset == "small" else IMAGE)
    channels = resolved.data.channels or 3
    return Plan(
        dataset_size=DATASET,
        channels=channels,
        image_size=side,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        fit=resolved.data.fit,
        batch_size=resolved.training.batch_size,
        accumulate=resolved.training.accumulate,
        steps_per_epoch=STEPS_PER_EPOCH,
        total_steps=TOTAL_STEPS,
    )


def _run(resolved: Resolved, plan: Plan, precision: str, mode: Pretended) -> Run:
    """Build a run as training does; it has no images and no directory."""
    device, none = torch.device("cuda", 0), cast("Any", None)
    with mode.allowing(copying=True):
        method = build_method(resolved, plan).to(device)
    method.train()
    method.autocast = autocasting(precision, device)
    optimizer, schedule = resolved.part("optimizer"), resolved.part("schedule")
    return Run(
        path=Path(),
        resolved=resolved,
        plan=plan,
        data=none,
        method=method,
        module=method,
        optimizer=make_optimizer(optimizer.factory, optimizer.settings, method, plan, device),
        schedule=schedule.factory(schedule.settings, plan),
        scaler=torch.amp.GradScaler("cuda", enabled=precision == "fp16"),
        batches=none,
        settings=RunSettings(precision=precision),
        device=device,
        peak=optimizer.settings.peak(plan.batch_size),
        card=card_of(resolved, plan),
    )


def _batch(resolved: Resolved, plan: Plan, mode: Pretended) -> Batch:
    """Return a batch on the device, its images of one size or, as the recipe says, their own."""
    rows, side = plan.batch_size, plan.image_size
    factory = resolved.part("views").factory
    indices = torch.arange(rows)
    with mode.allowing(copying=True):
        fields = {
            name: values.to("cuda") if isinstance(values, torch.Tensor) else values
            for name, values in made_up_fields(resolved, indices).items()
        }
        own = indices.to("cuda")
    if declared(factory, ViewsComponent, "takes") == "signals":
        return Batch(torch.randn(rows, plan.channels, side, device="cuda"), own, fields)
    extents, shape = None, (rows, plan.channels, side, side)
    if plan.fit == "whole":
        # Photographs of two formats.
        sizes = torch.tensor([[375, 500], [500, 375]]).repeat(rows // 2 + 1, 1)[:rows]
        starts = torch.arange(rows)[:, None] * (375 * 500)
        extents = torch.cat([starts, sizes], 1)
        shape = (rows * 375 * 500, plan.channels)  # type: ignore[assignment]
    images = torch.empty(shape, dtype=torch.uint8, device="cuda")
    return Batch(images, own, fields, extents)


def _evaluate(run: Run, batch: Batch, mode: Pretended) -> None:
    """Compute features as an evaluation does, and a kNN vote among them."""
    with mode.allowing(copying=True, reading=True), torch.no_grad():
        network = export(run.method, run.card).to(run.device).eval()
        network._checked = True  # the first batch's values are looked at, and there are none
        side = run.plan.image_size
        shape = (
            batch.images.shape[1:] if batch.images.ndim == 3 else (run.plan.channels, side, side)
        )
        rows = network(torch.rand(EVALUATED, *shape, device="cuda")).float()
        labels = torch.arange(EVALUATED, device="cuda") % CLASSES
        scores = vote(rows, labels, rows[: EVALUATED // 2], CLASSES, NEIGHBOURS)
    if not scores.is_cuda or scores.shape != (EVALUATED // 2, CLASSES):
        raise ConformanceError(
            f"the kNN vote is {tuple(scores.shape)} on {scores.device}, not "
            f"({EVALUATED // 2}, {CLASSES}) on the device"
        )
    for name, value in network.state_dict().items():
        if not value.is_cuda:
            raise ConformanceError(f"{name} of the exported network lies on the {value.device}")
