"""Made-up records of any size, the same in every call, for tests of one component.

They fit each other: called with the same number of rows, they are of the same images (row i of
everything shows image i), and by default they have two views, each the other's positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.plan import BackboneSpec, Layout, Plan
from coview.records import Batch, Encoded, Negatives, Step, Targets, Views
from coview.views import positives

FEATURES = 24
"""Width of what the made-up backbone returns."""


def a_batch(
    rows: int = 8,
    *,
    channels: int = 3,
    size: int = 32,
    fields: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Batch:
    """Return images of noise (rows, channels, size, size) uint8 with indices 0, 1, 2, ..."""
    shape = (rows, channels, size, size)
    images = torch.randint(256, shape, generator=_generator(seed), dtype=torch.uint8)
    return Batch(images, torch.arange(rows), dict(fields or {}))


def a_step(number: int = 0, *, total_steps: int = 40, seed: int = 3, component: str = "") -> Step:
    """Return a step of a run of 4 steps an epoch, as ``component`` sees it."""
    whole = Step(number=number, steps_per_epoch=4, total_steps=total_steps, seed=seed)
    return whole.within(component) if component else whole


def some_views(
    rows: int = 8, *, count: int = 2, channels: int = 3, size: int = 32, seed: int = 0
) -> Views:
    """Return ``count`` views in [0, 1] (rows, channels, size, size), all queries and keys."""
    make, everyone = _generator(seed), tuple(range(count))
    crops = tuple(torch.rand(rows, channels, size, size, generator=make) for _ in everyone)
    return Views(crops, everyone, everyone, positives(everyone, everyone))


def an_encoded(
    rows: int = 8,
    dim: int = 16,
    *,
    views: int = 2,
    identities: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 1,
) -> Encoded:
    """Return normal queries (rows, dim) with gradient, which are also the projections.

    Args:
        rows: number of images N.
        dim: width d of what is compared.
        views: number of slots, each of them a view.
        identities: (N,) int64; None: 0, 1, 2, ...
        dtype: float64, so that a comparison with a formula is exact.
        seed: seed of the numbers.
    """
    make, everyone = _generator(seed), tuple(range(views))
    queries = {v: _normal(rows, dim, make, dtype).requires_grad_() for v in everyone}
    features = {v: _normal(rows, FEATURES, make, dtype).requires_grad_() for v in everyone}
    own = torch.arange(rows) if identities is None else identities
    pairs = positives(everyone, everyone)
    return Encoded(queries, queries, dict.fromkeys(everyone, own), pairs, features)


def some_targets(
    rows: int = 8,
    dim: int = 16,
    *,
    slots: Sequence[int] = (0, 1),
    identities: Tensor | None = None,
    gradient: bool = False,
    dtype: torch.dtype = torch.float64,
    seed: int = 2,
) -> Targets:
    """Return normal keys (rows, dim) for each slot; with gradient only if asked for."""
    make = _generator(seed)
    keys = {s: _normal(rows, dim, make, dtype).requires_grad_(gradient) for s in slots}
    own = torch.arange(rows) if identities is None else identities
    return Targets(keys, dict.fromkeys(slots, own))


def some_negatives(
    count: int = 12,
    dim: int = 16,
    *,
    rows: int | None = None,
    slots: Sequence[int] = (0, 1),
    identities: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 3,
) -> Negatives:
    """Return normal vectors (count, dim) that all queries share, or (rows, count, dim).

    Args:
        count: number of negatives K.
        dim: width d of what is compared.
        rows: number of queries N, for a set of negatives for each query; None: one for all.
        slots: the key slots; each has the same negatives.
        identities: (K,) or (N, K) int64; None: no identities, so all of them count.
        dtype: float64, so that a comparison with a formula is exact.
        seed: seed of the numbers.
    """
    shape = (count, dim) if rows is None else (rows, count, dim)
    vectors = torch.randn(shape, generator=_generator(seed), dtype=dtype)
    return Negatives(dict.fromkeys(slots, vectors), dict.fromkeys(slots, identities))


def a_plan(*, dim: int = 16, views: int = 2, size: int = 32, **changes: Any) -> Plan:
    """Return a plan of 8 images a step and 64 in all, with a layout and a tiny backbone.

    Args:
        dim: width d of what is compared.
        views: number of views, all queries and keys.
        size: pixels per side of images and views.
        **changes: other attributes of :class:`coview.Plan`, e.g. ``encoder=`` or ``batch_size=``.
    """
    channels, everyone = changes.get("channels", 3), tuple(range(views))
    layout = Layout(
        ((size, size),) * views,
        (channels,) * views,
        everyone,
        everyone,
        positives(everyone, everyone),
    )
    plan = Plan(
        dataset_size=64,
        channels=channels,
        image_size=size,
        mean=(0.5,) * channels,
        std=(0.2,) * channels,
        batch_size=8,
        steps_per_epoch=4,
        total_steps=40,
        backbone=BackboneSpec("tiny", TinyBackbone),
        layout=layout,
        dim=dim,
    )
    return attrs.evolve(plan, **changes)


class TinyBackbone(nn.Sequential):
    """Sixteen mean colours and a linear layer: (B, C, H, W) -> (B, 24), in microseconds."""

    def __init__(self, channels: int, image_size: int, settings: Any = None) -> None:
        layer = nn.Linear(16 * channels, FEATURES)
        super().__init__(nn.AdaptiveAvgPool2d(4), nn.Flatten(), layer, nn.Tanh())
        self.num_features = FEATURES


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(rows: int, width: int, make: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, width, generator=make, dtype=dtype)
