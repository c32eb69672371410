"""What a component is told about the run when it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from coview.records import Pairs

if TYPE_CHECKING:
    from torch import nn

Notice = Callable[[str], None]


def _silent(text: str) -> None:
    """Discard a notice: the default."""


@attrs.frozen
class Layout:
    """The views that a views component makes of every batch, known before the first one.

    Attributes:
        sizes: height and width of each view, in pixels.
        channels: channels of each view.
        queries: numbers of the views that the online network encodes.
        keys: numbers of the views that the target encodes.
        pairs: the positives, as (query view, key view).
        grid: rows and columns, if the views are patches of one image in reading
            order; None if each view shows the whole image or a crop of it.
    """

    sizes: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    pairs: Pairs
    grid: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """The number of views."""
        return len(self.sizes)


Factory = Callable[[int, int, Any], "nn.Module"]
"""(channels, image size, settings) -> module with an attribute ``num_features``."""


@attrs.frozen(eq=False)
class BackboneSpec:
    """A backbone that an encoder can build as often as it needs.

    Attributes:
        name: a registered or timm name, or the class of a module that was passed in.
        factory: the function that builds it.
        settings: a :class:`coview.recipes.tables.BackboneSettings`.
    """

    name: str
    factory: Factory
    settings: Any = None

    def build(self, channels: int, image_size: int) -> nn.Module:
        """Return a new backbone with fresh weights; ``num_features`` is its width D."""
        return self.factory(channels, image_size, self.settings)


@attrs.frozen(eq=False)
class Plan:
    """The run as components see it while they are built; roles are built in order.

    Attributes:
        dataset_size: images in the training set.
        channels: channels of the loader's images.
        image_size: height and width of the loader's images, in pixels.
        mean: mean of each channel, for values in [0, 1].
        std: standard deviation of each channel, for values in [0, 1].
        fit: what crops are cut from: ``"whole"`` (the image itself) or ``"square"`` (its
            centre, resized to ``image_size``).
        batch_size: images per optimiser step, over all processes.
        world_size: number of processes.
        accumulate: micro-batches per optimiser step.
        steps_per_epoch: optimiser steps in an epoch.
        total_steps: optimiser steps in the whole training.
        backbone: what an encoder builds its trunk from.
        layout: the layout of the views, once they are built.
        dim: the width of what is compared, once the encoder is built.
        slots: what the rows of each key slot are, once the encoder is built; empty:
            every key slot is a view, and its rows are images.
        encoder: the encoder, once it is built, for a target that copies it.
        notice: called with a sentence when a component adjusts something.
    """

    dataset_size: int = 0
    channels: int = 3
    image_size: int = 32
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    fit: str = "square"
    batch_size: int = 256
    world_size: int = 1
    accumulate: int = 1
    steps_per_epoch: int = 1
    total_steps: int = 1
    backbone: BackboneSpec | None = None
    layout: Layout | None = None
    dim: int = 0
    slots: Mapping[int, str] = attrs.field(factory=dict)
    encoder: nn.Module | None = None
    notice: Notice = _silent

    @property
    def local_batch_size(self) -> int:
        """Images in one forward pass of this process."""
        return self.batch_size // (self.world_size * self.accumulate)
