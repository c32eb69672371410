"""The records that flow through a step, from images to loss.

A *view* is one rendering of the batch. A *slot* is one thing that is compared:
for most methods a slot is a view; a method may have others (a prediction
offset, for example). Values by slot or by view are mappings from its number to
a tensor, so a network that encodes only view 0 has the entry 0 and no holes.

B is the batch size of this process, C the channels, N the rows compared (B for
methods that compare whole images), d the width compared, D the backbone's width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from coview.schedules import Schedule
from coview.seeds import derived_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Drawn = tuple[Tensor, Tensor | None]

Pairs = tuple[tuple[int, int], ...]
"""Positives as (query, key) numbers of views or slots."""


@attrs.frozen(eq=False)
class Batch:
    """The images of one step, and what else their data set gives that a component asked for.

    Attributes:
        images: (B, C, H, W) uint8 on the run's device, in the size that the loader delivers.
            With ``extents``, (P, C) uint8: the pixels of all images, each at its own size.
        indices: (B,) int64, each image's position in the training set; none
            occurs twice in a global batch, except in batches made with
            ``same_class``.
        fields: by name, what a component's ``needs_fields`` lists and nothing else, so
            labels enter training only where a method asks for them: (B, ...) tensors on
            the device, or lists of B values that are no numbers (captions).
        extents: (B, 3) int64 on the CPU, for images at their own sizes: the first of each
            image's pixels (in reading order), its height and its width. None: one size.
            Only views that declare a ``least_side`` get such a batch.
    """

    images: Tensor
    indices: Tensor
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    extents: Tensor | None = None


@attrs.frozen(eq=False)
class Views:
    """What the views component makes of a batch.

    Attributes:
        crops: one (B, C, h_v, w_v) float tensor per view.
        queries: numbers of the views that the online network encodes.
        keys: numbers of the views that the target encodes.
        pairs: the positives among them.
        about: by name, then by view, what else is known of the views, for encoders
            that use it: masks (B, h, w) bool, boxes (B, 4), and the like.
    """

    crops: tuple[Tensor, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    pairs: Pairs
    about: Mapping[str, Mapping[int, Tensor]] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Encoded:
    """What the online network makes of the query views.

    Attributes:
        queries: by slot, (N, d): what the loss compares, that is the
            predictor's output or, without one, the projection; with gradient.
        projections: by slot, (N, d): the projector's output, with gradient.
        identities: by slot, (N,) int64, global: rows of equal identity show
            the same thing.
        pairs: positives as (query slot, key slot).
        features: by view, (B, D): the backbone's output, with gradient.
        maps: by view, (B, D, h, w): its feature map, of encoders that compare places.
    """

    queries: Mapping[int, Tensor]
    projections: Mapping[int, Tensor]
    identities: Mapping[int, Tensor]
    pairs: Pairs
    features: Mapping[int, Tensor]
    maps: Mapping[int, Tensor] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Targets:
    """What queries are compared with.

    Attributes:
        keys: by slot, (N, d); with gradient only where the target says so.
        identities: by slot, (N,) int64, global.
        remembered: by slot, (M, d): what a queue keeps where it is not the keys
            themselves (the mean of an image's places, say).
    """

    keys: Mapping[int, Tensor]
    identities: Mapping[int, Tensor]
    remembered: Mapping[int, Tensor] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Negatives:
    """One source's negatives.

    Attributes:
        vectors: by key slot, (K, d) shared by all queries, or (N, K, d), a set
            for each query.
        identities: by key slot, (K,), (N, K) or None. Where one equals a
            query's own identity, it does not count as a negative of that query. Images
            are counted from 0, so -1 stands for no image: a negative of every query.
        normalized: rows are known to be unit vectors, so a loss that compares
            by cosine need not divide by their norms again.
        by_pair: by (query slot, key slot), vectors and identities of the same shapes that
            take the place of the key slot's, where negatives depend on the query.
    """

    vectors: Mapping[int, Tensor]
    identities: Mapping[int, Tensor | None]
    normalized: bool = False
    by_pair: Mapping[tuple[int, int], Drawn] = attrs.field(factory=dict)

    def of(self, query: int, key: int) -> Drawn:
        """Return what a loss compares a pair's queries with: vectors and identities."""
        found = self.by_pair.get((query, key))
        return found or (self.vectors[key], self.identities[key])


def _ignore(name: str, value: Tensor) -> None:
    """Discard a metric: the default sink."""


@attrs.frozen(eq=False)
class Step:
    """Where training stands, and the only source of randomness in components.

    Attributes:
        number: optimiser steps done before this one; the first step is 0.
        steps_per_epoch: optimiser steps in an epoch.
        total_steps: optimiser steps in the whole training.
        seed: the run's seed.
        device: where the generator lives.
        component: the component that draws; set for each call of a hook.
        micro: number of the micro-batch in an accumulated step.
    """

    number: int = 0
    steps_per_epoch: int = 1
    total_steps: int = 1
    seed: int = 0
    device: torch.device | str = "cpu"
    component: str = ""
    micro: int = 0
    sink: Callable[[str, Tensor], None] = _ignore
    _generators: dict[str, torch.Generator] = attrs.field(factory=dict, repr=False)

    @property
    def epoch(self) -> int:
        """Epochs completed before this step, so the first epoch is 0."""
        return self.number // self.steps_per_epoch

    @property
    def total_epochs(self) -> int:
        """Epochs in the whole training; the last one may be incomplete."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def fraction(self) -> float:
        """Share of the training done before this step, in [0, 1)."""
        return self.number / self.total_steps

    def within(self, component: str) -> Step:
        """Return this step as ``component`` sees it: with its own generator."""
        return attrs.evolve(self, component=component, generators=self._generators)

    @property
    def generator(self) -> torch.Generator:
        """A generator on the device, seeded from (seed, step, component).

        It is the same on every process: draw for the global batch and use your
        own rows; n processes then equal one. Within a step it continues where
        the component's last call left it.
        """
        import torch

        if self.component not in self._generators:
            generator = torch.Generator(device=self.device)
            generator.manual_seed(self.seed_for(self.component))
            self._generators[self.component] = generator
        return self._generators[self.component]

    def seed_for(self, what: str) -> int:
        """Return a 63-bit seed that depends on (seed, step, micro-batch, ``what``)."""
        return derived_seed(self.seed, self.number, self.micro, what)

    def read(self, value: float | Schedule) -> float | Tensor:
        """Return a setting's value now.

        A number is returned as it is, a schedule as a 0-dim float64 tensor on
        the device (float32 where the device has no float64), made without
        synchronising, so that a captured step can be fed new values.
        """
        if not isinstance(value, Schedule):
            return value
        import torch

        has_double = torch.device(self.device).type != "mps"
        dtype = torch.float64 if has_double else torch.float32
        return torch.full((), value.at(self), dtype=dtype, device=self.device)

    def log(self, name: str, value: Tensor) -> None:
        """Keep a 0-dim tensor as a metric; it stays on the device until read."""
        self.sink(name, value.detach())
