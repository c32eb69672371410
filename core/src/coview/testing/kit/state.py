"""Promises on state: checkpoints, micro-batches, exported weights."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.records import Batch, Views
from coview.testing.errors import NotTried, demand
from coview.testing.evidence import different, told
from coview.testing.kit.step import forward_in_parts
from coview.testing.subject import Built, Subject
from coview.weights.exported import export, load_backbone, save_backbone

STEPS = 3


def goes_on_exactly(subject: Subject) -> None:
    """Checkpoints are complete: a new build that loads one trains on exactly, to the last bit."""
    going_on = subject.train(subject.build(), 0, 2)
    file = io.BytesIO()
    kept = (going_on.method.state_dict(), going_on.optimizer.state_dict())
    torch.save(kept, file)
    subject.train(going_on, 2, STEPS)

    file.seek(0)
    method, optimizer = torch.load(file, weights_only=True)
    resumed = subject.build(seed=1)
    resumed.method.load_state_dict(method)
    resumed.optimizer.load_state_dict(optimizer)
    subject.train(resumed, 2, STEPS)

    wrong = different(going_on.state(), resumed.state())
    for number, (ours, theirs) in enumerate(zip(resumed.losses, going_on.losses[2:], strict=True)):
        demand(
            ours == theirs,
            f"the loss of step {number} after loading is {ours!r}, not {theirs!r}: keep all state "
            "that it depends on in buffers (register_buffer)",
            lambda: told(next(wrong, None), "without a pause", "after loading"),
        )
    first = next(wrong, None)
    demand(
        first is None,
        f"after loading and training on to step {STEPS}, {first and first[0]} differs",
        lambda: told(first, "without a pause", "after loading"),
    )


def accumulates(subject: Subject) -> str:
    """A step in micro-batches updates memories once, with all rows.

    If the loss is a mean over rows, the step equals that of the whole batch, except
    for batch norm: gradients, queues and banks. It need not be: a row's gradient may depend
    on the batch's other rows (in-batch negatives, statistics), or on what is drawn at random,
    which each micro-batch does anew. The check finds out which, and says so.
    """
    try:
        built = subject.build(accumulate=2)
    except RequestError as error:
        raise NotTried(f"it does not support micro-batches: {error.problems[0]}") from error
    calls = forward_in_parts(subject, built, 2).calls
    demand(len(calls) == 1, f"update_target was called {len(calls)} times in a step, not once")
    indices = subject.batch(0).indices
    demand(torch.equal(calls[0][0], indices), "update_target did not get the whole batch's images")
    whole, halves = _compared(subject, 1), _compared(subject, 2)
    if abs(sum(whole.losses) - sum(halves.losses)) > 1e-9:
        return _why_other(subject, whole, halves)
    wrong = list(different(whole.state(), halves.state(), rtol=1e-5, atol=1e-7))
    demand(
        not wrong,
        f"{', '.join(key for key, _, _ in wrong[:3])} differ from those after a step on the "
        "whole batch",
        lambda: told(wrong[0], "whole", "in halves", rtol=1e-5, atol=1e-7),
    )
    return "a step in micro-batches equals one on the whole batch"


def exports(subject: Subject) -> str:
    """The exported backbone, loaded from its file, gives the same features."""
    built = subject.train(subject.build(), 0, 1)
    exported = export(built.method, subject.card()).eval()
    images = subject.batch(0).images.float() / 255
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "backbone.safetensors"
        save_backbone(exported, path)
        before, after = exported(images), load_backbone(path)(images)
    demand(before.ndim == 2, f"features have shape {tuple(before.shape)}, not (B, D)")
    near = torch.allclose(before, after, rtol=1e-4, atol=1e-5)  # weights' memory layout differs
    demand(
        near,
        "the loaded backbone gives different features",
        lambda: told(("features", before, after), "exported", "loaded", rtol=1e-4, atol=1e-5),
    )
    return f"{before.shape[1]} features"


class Frozen:
    """An observer that gives every micro-batch the views that the whole batch would get."""

    def __init__(self, views: Views, indices: Tensor) -> None:
        self.views, self.indices = views, indices

    def with_others(self) -> None:
        """Show other images in the second half of the batch."""
        half = len(self.indices) // 2
        crops = tuple(torch.cat([crop[:half], -crop[half:]]) for crop in self.views.crops)
        self.views = attrs.evolve(self.views, crops=crops)

    @hookimpl(wrapper=True)
    def generate_views(self, batch: Batch) -> Any:
        """Return this part's rows of the whole batch's views."""
        yield
        rows = [self.indices.tolist().index(i) for i in batch.indices.tolist()]
        about = {
            name: {view: value[rows] for view, value in by_view.items()}
            for name, by_view in self.views.about.items()
        }
        with torch.enable_grad():  # crops may be what a gradient is taken for
            crops = tuple(crop[rows] for crop in self.views.crops)
        return attrs.evolve(self.views, crops=crops, about=about)


def _why_other(subject: Subject, whole: Built, halves: Built) -> str:
    """Return why the loss of a batch is not the mean of its halves'."""
    one, other = (_first_half(subject, others) for others in (False, True))
    for gradient, changed in zip(one, other, strict=True):
        if (gradient - changed).abs().max() > 1e-8 * gradient.abs().max():
            return "its loss compares the rows of a batch with each other"
    losses = []
    for seed in (3, 4):
        built, _ = _frozen(subject, 1)
        losses.append(float(built.method(subject.batch(0), subject.step(0, seed)).detach()))
    demand(
        losses[0] != losses[1],
        f"the loss of a batch is {sum(whole.losses):.9g} and the mean of its halves' "
        f"{sum(halves.losses):.9g}, though no row depends on another: return a mean over rows",
    )
    return "its loss draws at random, in each micro-batch anew; rows are not compared"


def _first_half(subject: Subject, others: bool) -> list[Tensor]:
    """Return the loss's gradient for the first half of the crops, perhaps beside other images."""
    built, frozen = _frozen(subject, 1)
    # Layers that start at zero would let no gradient through.
    make = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.method.parameters():
            noise = torch.randn(parameter.shape, generator=make, dtype=parameter.dtype)
            parameter.add_(noise.to(parameter.device), alpha=0.02)
    if others:
        frozen.with_others()
    crops = tuple(crop.requires_grad_() for crop in frozen.views.crops)
    loss = built.method(subject.batch(0), subject.step(0))
    gradients = torch.autograd.grad(loss, crops, allow_unused=True, materialize_grads=True)
    half = len(frozen.indices) // 2
    return [gradient[:half] for gradient in gradients]


def _compared(subject: Subject, parts: int) -> Built:
    """Do one step in ``parts`` parts, with the same views and frozen batch norms."""
    built, _ = _frozen(subject, parts)
    forward_in_parts(subject, built, parts)
    return built


def _frozen(subject: Subject, parts: int) -> tuple[Built, Frozen]:
    """Build a method that always gets the same views, and whose batch norms are frozen."""
    built = subject.build(accumulate=parts, double=True)
    batch, step = subject.batch(0), subject.step(0)
    with torch.no_grad():
        views = built.method.manager.hook.generate_views(batch=batch, step=step)
    frozen = Frozen(views, batch.indices)
    built.method.observe(frozen, "frozen")
    for module in built.method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return built, frozen
