"""Promises on views."""

from __future__ import annotations

import torch
from torch import Tensor

from coview.plan import Layout
from coview.records import Views
from coview.testing.errors import demand
from coview.testing.evidence import different, told
from coview.testing.subject import Built, Subject


def fit_their_layout(subject: Subject) -> str:
    """Views have the number, sizes, channels and pairs that their layout announces.

    Encoders, queues and losses are built for this layout before the first batch.
    """
    built = subject.build()
    layout: Layout = built.method.components["views"].layout  # type: ignore[assignment]
    views = made(subject, built, 0)
    demand(
        len(views.crops) == layout.count,
        f"there are {len(views.crops)} views, but the layout says {layout.count}",
    )
    for number, crop in enumerate(views.crops):
        announced = (subject.images, layout.channels[number], *layout.sizes[number])
        seen = tuple(crop.shape)
        # A signal's view has one row, without a dimension for it.
        fits = seen == announced or seen == (*announced[:2], announced[3])
        demand(fits, f"view {number} has shape {seen}, but its layout says {announced}")
        demand(crop.is_floating_point(), f"view {number} is {crop.dtype}, not float")
        demand(bool(crop.isfinite().all()), f"view {number} has values that are not finite")
    for name in ("queries", "keys", "pairs"):
        given, announced = getattr(views, name), getattr(layout, name)
        demand(
            tuple(given) == tuple(announced), f"{name} are {given}, but the layout says {announced}"
        )
    return f"{layout.count} views, {len(layout.pairs)} pairs"


def follow_the_step(subject: Subject) -> None:
    """Views depend only on (seed, step), and differ from step to step.

    So a resumed run sees the views that it would have seen.
    """
    built = subject.build()
    first = made(subject, built, 0).crops
    torch.rand(7)  # other code draws too
    again = next(different(first, made(subject, built, 0).crops, "crops"), None)
    demand(
        again is None,
        "the same step gives different views",
        lambda: told(again, "first", "again"),
    )
    batch = subject.batch(0)
    for text, step in (("step", subject.step(1)), ("seed", subject.step(0, seed=4))):
        with torch.no_grad():
            other = built.method.manager.hook.generate_views(batch=batch, step=step).crops
        demand(not _same(first, other), f"another {text} gives the same views")


def evaluate_without_randomness(subject: Subject) -> None:
    """``evaluation_views`` gives the same views of an image every time, in any batch."""
    built = subject.build()
    images = subject.batch(0).images
    first = built.method.evaluation_views(images).crops
    again = next(different(first, built.method.evaluation_views(images).crops, "crops"), None)
    demand(
        again is None,
        "evaluation_views gives different views when repeated",
        lambda: told(again, "first", "again"),
    )
    alone = built.method.evaluation_views(images[3:4]).crops
    own = tuple(crop[3:4] for crop in first)
    other = next(different(own, alone, "crops", rtol=1e-5, atol=1e-6), None)
    demand(
        other is None,
        "an image's evaluation views depend on the other images in its batch",
        lambda: told(other, "in the batch", "alone", rtol=1e-5, atol=1e-6),
    )


def made(subject: Subject, built: Built, number: int) -> Views:
    """Return the views of a step's batch."""
    batch, step = subject.batch(number), subject.step(number)
    with torch.no_grad():
        views: Views = built.method.manager.hook.generate_views(batch=batch, step=step)
    return views


def _same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
