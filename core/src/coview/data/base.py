"""What coview expects of a data set.

An entry point in the group ``coview.datasets`` names a :class:`Source` class. It
is constructed with a path, tells the size of its images cheaply, and loads into
:class:`ImageData`. Images are uint8 and all of one size; labels are kept apart
and are used in evaluation only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
            decodes one (C, S, S) uint8 tensor per index on demand. One that is read in order
            may have ``shuffled_within``, the places by which an image may leave its own.
        labels: (N,) int64, the one class of each image, or None.
        multi_hot: (N, C) bool, which classes each image has, where it may have several; or None.
        names: each image's name (its path below the data set's folder), or None.
        rows: (N,) int64, each image's index in the data set that this was split
            from; None if the data came in splits.
        bad: images known to be unreadable, which other images stand in for. For
            data in memory all are known from the start, for others each is
            known once it has been read.
        fields: what there is for each image beside its label, by name, for methods that
            ask for it (``needs_fields``): a tensor (N, ...), or a list of N values.
        whole: the same images at their own sizes, (C, h, w) uint8 each, for views that cut
            crops from the image itself; None: they are not asked for, or there are none.
    """

    images: Tensor | Dataset[Tensor]
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None
    rows: Tensor | None = None
    bad: BadImages = attrs.field(factory=BadImages)
    fields: Mapping[str, Tensor | Sequence[Any]] = attrs.field(factory=dict)
    whole: Dataset[Tensor] | None = None
    multi_hot: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    @property
    def resident(self) -> Tensor | None:
        """The images if they are in memory, else None."""
        return self.images if isinstance(self.images, Tensor) else None

    @property
    def truth(self) -> Tensor | None:
        """What evaluation compares with: ``labels`` (N,) int64, or ``multi_hot`` (N, C) bool."""
        return self.multi_hot if self.labels is None else self.labels

    def field(self, name: str) -> Tensor | Sequence[Any] | None:
        """Return a field (N, ...); ``labels`` are one where there are any. None: it is missing."""
        found = self.fields.get(name)
        return self.truth if found is None and name == "labels" else found

    def kept(self, values: Tensor) -> Tensor:
        """Return ``values`` (N, ...) without the rows of images known to be unreadable."""
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
        train: images to train on.
        test: images to measure accuracy on; None if there are none.
        reference: labelled images that test images are compared with; the
            training images unless those have no labels (STL-10).
        classes: names of the classes, by label.
        channels: number of channels.
        size: pixels per side.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].
        fingerprint: a hash that changes when the data do; stored with the run.
        notes: sentences on what was decided while loading (the split, for example).
        reading: what decides which pixels a file becomes (background, orientation, range),
            as it was used; weights keep it.
        summary: what a source found: images found and left out by reason, modes and sizes of
            a sample, images by label.
        remarks: those of the notes that are about the files: what is left out, lost or measured.
        fit: what training's crops are cut from: ``"whole"``, the images themselves (which
            are in ``train.whole``, unless they all have the delivered size), or ``"square"``.
        mean_pixels: pixels of a training image at its own size, in the mean; 0: not known.
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
    reading: Mapping[str, str] = attrs.field(factory=dict)
    summary: Mapping[str, Any] = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()
    fit: str = "square"
    mean_pixels: float = 0.0

    @property
    def labelled(self) -> bool:
        """Whether an accuracy can be measured: there are test images, of one class each."""
        return (
            self.reference.labels is not None
            and self.test is not None
            and self.test.labels is not None
        )

    @property
    def multi_label(self) -> bool:
        """Whether average precision can be measured: test images may have several classes."""
        return (
            self.reference.multi_hot is not None
            and self.test is not None
            and self.test.multi_hot is not None
        )

    @property
    def bad_images(self) -> dict[str, Any]:
        """The images known to be unreadable, for each split that has any."""
        splits = {"train": self.train, "reference": self.reference, "test": self.test}
        return {
            name: split.bad.facts()
            for name, split in splits.items()
            if split is not None
            and len(split.bad)
            and not (name == "reference" and split is self.train)
        }


class Source(Protocol):
    """A data set that users can name: what an entry point in ``coview.datasets`` refers to.

    A source of something other than images says so in an attribute ``gives``,
    for example ``"signals"``: (N, C, T) float, with T in place of the pixels per
    side. It works with views whose attribute ``takes`` is the same; see
    :class:`coview.components.DataSource`.
    """

    def __init__(self, path: str | None, download: bool = False) -> None:
        """Remember where the data are.

        Raises:
            RequestError: a path is needed but not given, or nothing is there;
                the message says how to get the data.
        """

    def native_size(self) -> int:
        """Return the stored images' pixels per side without decoding them all; 256 if they vary."""
        ...

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data."""
        ...
