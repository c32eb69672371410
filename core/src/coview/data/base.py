"""What a data set is to the rest of coview.

An entry point in the group ``coview.datasets`` names a class that is a
:class:`Source`: it is made with a path, says cheaply what size its images have,
and loads into :class:`ImageData`. Images are uint8 and of one size; labels are
kept apart and reach evaluation only.
"""

from __future__ import annotations

from typing import Any, Protocol

import attrs
import torch
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.bad_images import BadImages
from coview.recipes.tables import SMALL_IMAGE, DataSettings

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SMALL_IMAGE",
    "DataSettings",
    "ImageData",
    "Source",
    "Split",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@attrs.frozen(eq=False)
class Split:
    """A part of a data set.

    Attributes:
        images: (N, C, S, S) uint8 in memory, or a map-style data set that
            gives one (C, S, S) uint8 tensor an index, decoded when asked.
        labels: (N,) int64, or None.
        names: each image's name (its path below the data set's folder), or None.
        rows: (N,) int64, each image's place in the data set that this was split
            from; None if the data came in splits.
        bad: images that could not be read, as far as is known: those of a set
            in memory at once, of any other when they were looked at. Others
            stand in their places.
    """

    images: Tensor | Dataset[Tensor]
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None
    rows: Tensor | None = None
    bad: BadImages = attrs.field(factory=BadImages)

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    @property
    def resident(self) -> Tensor | None:
        """The images, if they are in memory."""
        return self.images if isinstance(self.images, Tensor) else None

    def kept(self, values: Tensor) -> Tensor:
        """Return the rows of (N, ...) whose images could be read, as far as is known."""
        if not len(self.bad):
            return values
        good = torch.ones(len(values), dtype=torch.bool)
        good[list(self.bad.faults)] = False
        return values[good.to(values.device)]


@attrs.frozen(eq=False)
class ImageData:
    """A loaded data set.

    Attributes:
        name: as users wrote it, e.g. ``"folder:/data/birds"``.
        train: what is trained on.
        test: what accuracy is measured on; None if there is none.
        reference: labelled images that a test image is compared with; the
            training images unless those have no labels (STL-10).
        classes: names of the classes, by label.
        channels: of the images.
        size: pixels a side.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
        fingerprint: changes when the data do; kept with the run.
        notes: what was decided while loading, in sentences (the split, say).
    """

    name: str
    train: Split
    test: Split | None
    reference: Split
    classes: tuple[str, ...]
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether an accuracy can be measured."""
        return (
            self.reference.labels is not None
            and self.test is not None
            and self.test.labels is not None
        )

    @property
    def bad_images(self) -> dict[str, Any]:
        """Which images cannot be read, as far as is known: by split, where there are any."""
        splits = {"train": self.train, "reference": self.reference, "test": self.test}
        return {
            name: split.bad.facts()
            for name, split in splits.items()
            if split is not None
            and len(split.bad)
            and not (name == "reference" and split is self.train)
        }


class Source(Protocol):
    """A data set by name; what the entry points of ``coview.datasets`` name.

    One of something else than images says of what, in an attribute ``gives``
    (``"signals"``, say: (N, C, T) float, T in place of the pixels a side), for
    views whose ``takes`` say the same; see :class:`coview.components.DataSource`.
    """

    def __init__(self, path: str | None, download: bool = False) -> None:
        """Remember where the data are.

        Raises:
            RequestError: the path is missing where one is needed, or there is
                nothing there; the message says how to get the data.
        """

    def native_size(self) -> int:
        """Pixels a side of the images as stored, without decoding them all; 256 if they vary."""
        ...

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe."""
        ...
