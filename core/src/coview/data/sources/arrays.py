"""Data passed as Python objects: arrays, tensors and map-style data sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.assemble import assemble, common_size, delivered_size, fits
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import CHUNK, fit, pixels
from coview.data.items import Changing, Item, changes, without_transform
from coview.data.loader import fetched
from coview.data.splits import digest, evenly_spaced
from coview.data.values import Reading, Values, settled
from coview.errors import RequestError

GREY_MODES = ("1", "L", "LA", "La", "I", "F")


def one_image(item: Any, reading: Reading | None = None, channels: int | None = None) -> Tensor:
    """Return the image (the first view) in a data set's item as (C, H, W) uint8.

    Args:
        item: an image, or what begins with one.
        reading: what a PIL image's alpha and values of more than 8 bits mean.
        channels: as many as a PIL image is asked for; None: 1 if it is grey, else 3.
    """
    image = Item.of(item).image
    if isinstance(image, Image.Image):
        try:
            own = 1 if image.mode.startswith(GREY_MODES) else 3
            wanted = channels if channels in (2, 4) else own
            return pixels(image, wanted, reading)
        except ValueError as error:
            raise RequestError(f"An image cannot be used: {error}.") from error
    if isinstance(image, (Tensor, np.ndarray)):
        return as_images(image[None])[0]
    raise RequestError(
        f"An item must be an image (tensor, array or PIL image), or a tuple that begins with "
        f"(image, label), but its image is of type {type(image).__name__}."
    )


def as_images(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return images in any accepted layout as (N, 1 or 3, H, W) uint8.

    If both readings are possible, a tensor's channels are taken to come first and
    an array's last, as is usual for each.
    """
    images = _as_tensor(values)
    if images.ndim == 3:
        images = images[:, None]
    first, last = (images.ndim == 4 and images.shape[d] in (1, 3) for d in (1, 3))
    if not (first or last) or 0 in images.shape[1:]:
        raise RequestError(
            f"Images must have the shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 "
            f"channels, not {tuple(values.shape)}."
        )
    if last and not (first and isinstance(values, Tensor)):
        images = images.permute(0, 3, 1, 2)
    return _to_bytes(images).contiguous()


def _as_tensor(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        # torch takes neither negative strides nor, without a warning, read-only memory.
        return torch.from_numpy(np.require(values, requirements=("C", "W")))
    except (TypeError, ValueError) as error:
        raise RequestError(f"Images must be uint8 or float, not {values.dtype}.") from error


def _to_bytes(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise RequestError(f"Images must be uint8, or float in [0, 1], not {kind}.")
    low, high = (images.min().item(), images.max().item()) if len(images) else (0, 0)
    # Written so that NaN is refused.
    if not 0 <= low <= high <= 1:
        raise RequestError(
            f"Float images must be in [0, 1], but run from {low:g} to {high:g}. (Leave out "
            "Normalize: coview normalises images itself.)"
        )
    return (images * 255).round().to(torch.uint8)


def numbered(
    labels: Iterable[Any], count: int, names: Any = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Number the distinct labels from 0, in sorted order.

    Args:
        labels: whole numbers from 0 or texts, one per image.
        count: number of images.
        names: names of the classes, by label, if known.

    Returns:
        (count,) int64, and the name of each class.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,):
        raise RequestError(
            f"There must be one label per image, so shape ({count},), not {values.shape}."
        )
    if values.dtype.kind not in "iubU" or (values.dtype.kind == "i" and (values < 0).any()):
        raise RequestError(
            "Labels must be whole numbers from 0, or texts. Without labels, pass the images alone."
        )
    found, numbers = np.unique(values, return_inverse=True)
    named = names is not None and found.dtype.kind in "iu" and found[-1] < len(names)
    return torch.from_numpy(numbers).long(), tuple(str(names[v] if named else v) for v in found)


def plain_label(label: Any) -> Any:
    """Return a label of one element as Python's own number or text; others as they are."""
    if isinstance(label, Tensor):
        return label.item() if label.numel() == 1 else label
    one = isinstance(label, (np.ndarray, np.generic)) and label.size == 1
    return label.item() if one else label


def single_classes(labels: Any) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Tell apart labels that are one class each from targets that are something else.

    Args:
        labels: one for each item, or None.

    Returns:
        The labels, or None if they are no classes; the fields of a split that such
        targets become, ``labels`` (N, ...); and a sentence about it, if so.
    """
    classes = (int, str, bool)
    if labels is None or all(isinstance(label, classes) for label in labels):
        return labels, {}, ()
    if all(isinstance(label, (int, float)) and float(label).is_integer() for label in labels):
        return [int(label) for label in labels], {}, ()
    kind = next(type(label).__name__ for label in labels if not isinstance(label, classes))
    return (
        None,
        {"labels": _together(labels)},
        (
            f"The targets (of type {kind}) are not one class per item: accuracies cannot be "
            "measured with them. They are the images' field 'labels'.",
        ),
    )


def _together(labels: Sequence[Any]) -> Tensor | list[Any]:
    """Return targets (N, ...) as one tensor if they are numbers of one shape, else as a list."""
    try:
        return torch.stack([torch.as_tensor(label) for label in labels])
    except (TypeError, ValueError, RuntimeError):
        return list(labels)


ACCEPTED = (
    "Data can be an array or tensor of images, a tuple (images, labels), or a map-style data set "
    "whose items are an image or (image, label)"
)

CHANGING = (
    "The data set's items change from call to call (a random transform inside it?), so they are "
    "read anew in every epoch, and accuracy is measured on the images as they come. Faster: give "
    "the data set without the transform, and the transform as views=. To keep the images as they "
    "are first read: --set data.cache=on."
)
FROZEN = (
    "The data set's items change from call to call (a random transform inside it?), but are kept "
    "as they were first read, as data.cache = on asks."
)
OF_VIEWS = (
    "Each item of the data set holds {count} views. The first is used as the image, of which the "
    "run makes its own views. To train on the data set's views, give it without the transform that "
    "makes them, and that transform as views=."
)

OBJECT = "array"
"""Name of data that were passed in Python."""


def from_object(
    data: object, settings: DataSettings, name: str = OBJECT, workers: int = 0
) -> ImageData:
    """Load data passed as a Python object; a share is held out as for a folder.

    Args:
        data: images as a tensor or array, (N, H, W), (N, C, H, W) or
            (N, H, W, C), uint8 or float in [0, 1]; a tuple (images, labels);
            or a map-style data set whose items are an image (tensor, array or
            PIL image) or a tuple that begins with (image, label).
        settings: the user's settings.
        name: name of the data in messages and in the run.
        workers: number of processes that read a data set's items.

    Raises:
        RequestError: ``data`` is none of these.
    """
    return Objects(data, name).load(settings, workers)


class Objects:
    """Serves a Python object as a :class:`coview.data.base.Source`.

    Attributes:
        views: number of views that an item of a data set holds; 1: items are images.
        transform: what makes these views: the data set's transform, without which its
            images are then read; None: it could not be taken out, or there are none.
    """

    def __init__(self, data: Any, name: str = OBJECT) -> None:
        """Check the data; see :func:`from_object`."""
        self.transform: Any = None
        self.name, self._data, self._labels = name, data, None
        if isinstance(data, tuple):
            if len(data) != 2:
                raise RequestError(f"{ACCEPTED}, not a tuple of {len(data)}.")
            self._data, self._labels = data
        if isinstance(self._data, (Tensor, np.ndarray)):
            self._data = as_images(self._data)
        elif isinstance(data, (tuple, str, bytes, Mapping)) or not hasattr(data, "__getitem__"):
            raise RequestError(f"{ACCEPTED}, not {type(data).__name__}.")
        elif not hasattr(data, "__len__"):
            raise RequestError(f"{ACCEPTED}; {type(data).__name__} has no length.")
        if not len(self._data):
            raise RequestError("The data hold no images.")
        self.views = 1 if isinstance(self._data, Tensor) else Item.of(self._data[0]).views
        if self.views > 1 and (found := without_transform(self._data)) is not None:
            self._data, self.transform = found

    def native_size(self) -> int:
        """Return the shorter of height and width; 256 if it varies among items."""
        if isinstance(self._data, Tensor):
            return min(self._data.shape[-2:])
        sample = evenly_spaced(len(self._data), 8)
        return common_size(min(one_image(self._data[row]).shape[-2:]) for row in sample)

    def count(self) -> int:
        """Return the number of items, some of which may be held out."""
        return len(self._data)

    def _deep(self) -> Iterator[Values]:
        """Yield the values of PIL images of more than 8 bits in a sample."""
        if isinstance(self._data, Tensor):
            return
        for row in evenly_spaced(len(self._data), 32):
            image = Item.of(self._data[row]).image
            if isinstance(image, Image.Image) and image.mode.startswith(("I", "F")):
                yield np.asarray(image)

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data."""
        native, names = self.native_size(), getattr(self._data, "classes", None)
        images, labels, notes = self._data, self._labels, []
        reading, said = settled(settings, self._deep)
        fields: dict[str, Any] = {}
        if not isinstance(images, Tensor):
            channels = settings.channels or len(one_image(images[0], reading))
            items = Items(images, delivered_size(settings, native), channels, reading)
            if self.views > 1 and self.transform is None:
                notes.append(OF_VIEWS.format(count=self.views))
            changing = changes(items, evenly_spaced(len(items), 8))
            if changing and settings.cache == "auto":
                settings = attrs.evolve(settings, cache="off")
            images, labels = _read(items, settings, workers)
            labels, fields, why = single_classes(labels)
            said = (*said, *why)
            if changing:
                notes.append(FROZEN if isinstance(images, Tensor) else CHANGING)
                images = images if isinstance(images, Tensor) else Changing(images)
        numbers, classes = (None, ()) if labels is None else numbered(labels, len(images), names)
        # A data set, whose items are read anew each time, is only sampled.
        rows = evenly_spaced(len(images), 16)
        seen = [images] if isinstance(images, Tensor) else [images[row] for row in rows]
        if isinstance(images, Changing) and changes(images, rows):
            seen = []  # their own generators draw: only number and labels stay the same
        return assemble(
            self.name,
            Split(images, numbers, fields=fields),
            None,
            settings,
            native=native,
            channels=len(images[0]),
            classes=classes,
            fingerprint=digest(str(len(images)), numbers, *seen),
            notes=(*notes, *said),
            reading=reading,
        )


@attrs.frozen(eq=False)
class Items(Dataset[Tensor]):
    """The images of a user's data set: one (channels, size, size) uint8 tensor per index."""

    data: Any
    size: int
    channels: int
    reading: Reading = Reading()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.fitted(self.data[index])

    def fitted(self, item: Any) -> Tensor:
        """Return an item's image with this size and number of channels."""
        return fit(one_image(item, self.reading, self.channels), self.size, self.channels)


@attrs.frozen(eq=False)
class _Pairs(Dataset[Any]):
    items: Items
    keep: bool

    def __getitem__(self, index: int) -> tuple[Tensor | None, Any]:
        item = self.items.data[index]
        label = plain_label(Item.of(item).label)
        return self.items.fitted(item) if self.keep else None, label


def _columns(pairs: list[tuple[Any, Any]]) -> tuple[Tensor | None, list[Any]]:
    images = None if pairs[0][0] is None else torch.stack([image for image, _ in pairs])
    return images, [label for _, label in pairs]


def _read(items: Items, settings: DataSettings, workers: int) -> tuple[Tensor | Items, Any]:
    """Read all items once: labels, and images if they fit into memory."""
    keep = fits(settings, len(items), items.channels, items.size)
    rows = [rows.tolist() for rows in torch.split(torch.arange(len(items)), CHUNK)]
    images, labels = [], []
    for some, theirs in fetched(_Pairs(items, keep), rows, workers, _columns):
        images.append(some)
        labels += theirs
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise RequestError(f"{len(labels) - len(known)} of {len(labels)} images have no label.")
    return torch.cat(images) if keep else items, labels if known else None
