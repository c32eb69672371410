"""Data passed as Python objects: arrays, tensors and map-style data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.assemble import assemble, common_size, delivered_size, fits
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import CHUNK, fit, pixels, reduced
from coview.data.items import Changing, Item, changes, without_transform
from coview.data.loader import fetched
from coview.data.sources.targets import as_field, numbered, plain_label, read_targets
from coview.data.splits import digest, digest_of_fields, evenly_spaced
from coview.data.values import Reading, Values, eight_bits, settled
from coview.errors import RequestError
from coview.recipes.tables import DEFAULT_SIZE

DEEP = (torch.uint16, torch.int16)
"""Types of arrays whose range is measured, as that of files of 16 bits is."""
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
        return as_images(image[None], reading)[0]
    raise RequestError(
        f"An item must be an image (tensor, array or PIL image), or a tuple that begins with "
        f"(image, label), but its image is of type {type(image).__name__}."
    )


def as_images(values: Tensor | np.ndarray[Any, Any], reading: Reading | None = None) -> Tensor:
    """Return images in any accepted layout and type as (N, 1 or 3, H, W) uint8.

    Args:
        values: see :func:`laid_out`.
        reading: its range says what values that are not uint8 mean; without one floats
            are from 0 to 1, and whole numbers of 16 bits from 0 to 65535.
    """
    return _to_bytes(laid_out(values), reading or Reading())


def laid_out(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return images in any accepted layout as (N, 1 or 3, H, W), of their own type.

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
    return images


def _as_tensor(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        # torch takes neither negative strides nor, without a warning, read-only memory.
        return torch.from_numpy(np.require(values, requirements=("C", "W")))
    except (TypeError, ValueError) as error:
        raise RequestError(f"Images must be uint8 or float, not {values.dtype}.") from error


def _to_bytes(images: Tensor, reading: Reading) -> Tensor:
    if images.dtype == torch.uint8:
        return images.contiguous()
    if reading.window is None:
        _natural(images)
        if images.is_floating_point():
            return (images * 255).round().to(torch.uint8).contiguous()
    if images.dtype == torch.bfloat16:  # which NumPy does not know
        images = images.float()
    try:
        parts = [eight_bits(part.numpy(), reading) for part in images.split(CHUNK)]
    except ValueError as error:
        raise RequestError(f"Images cannot be used: {error}.") from error
    return torch.cat([torch.from_numpy(part) for part in parts]).contiguous()


def _natural(images: Tensor) -> None:
    """Refuse what is neither float in [0, 1] nor whole numbers of 16 bits."""
    if images.dtype in DEEP:
        return
    kind = str(images.dtype).removeprefix("torch.")
    if not images.is_floating_point():
        raise RequestError(
            f"Images must be uint8, or float in [0, 1], not {kind}. Other values are used as "
            "data.range = LOW,HIGH says, for example set={'data.range': '0,4095'}."
        )
    low, high = (images.min().item(), images.max().item()) if len(images) else (0, 0)
    # Written so that NaN is refused.
    if not 0 <= low <= high <= 1:
        raise RequestError(
            f"Float images must be in [0, 1], but run from {low:g} to {high:g}. (Leave out "
            "Normalize: coview normalises images itself.) If that is what they mean: "
            f"set={{'data.range': '{low:g},{high:g}'}}."
        )


ACCEPTED = (
    "Data can be an array or tensor of images, a tuple (images, labels), a dict with 'images' and "
    "for each of them 'labels' or other fields, or a map-style data set whose items are an image "
    "or (image, label)"
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
            (N, H, W, C), uint8, float in [0, 1], or what ``data.range`` says; a
            tuple (images, labels); a dict of ``images``, ``labels`` if there are
            any, and fields that a component may need (``captions``), each with one
            value per image; or a map-style data set whose items are an image (tensor, array or
            PIL image) or a tuple that begins with (image, label).
        settings: the user's settings.
        name: name of the data in messages and in the run.
        workers: number of processes that read a data set's items.

    Raises:
        RequestError: ``data`` is none of these.
    """
    return Objects(data, name).load(settings, workers)


def _taken_apart(data: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Return the images, their labels or None, and the fields of a dict."""
    if "images" not in data:
        keys = ", ".join(map(repr, data)) or "nothing"
        raise RequestError(f"{ACCEPTED}, not a dict of {keys}.")
    fields = {name: values for name, values in data.items() if name != "images"}
    for name, values in fields.items():
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise RequestError(
                f"{name!r} must have one value per image, not be {type(values).__name__}."
            )
    return data["images"], fields.pop("labels", None), fields


def _length(values: Any) -> int:
    """Return how many values there are; of one number, 1."""
    try:
        return len(values)
    except TypeError:
        return 1


def _short_side(item: Any) -> int:
    image = Item.of(item).image
    if isinstance(image, (Tensor, np.ndarray)):
        return min(laid_out(image[None]).shape[-2:])
    return min(one_image(item).shape[-2:])


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
        self._fields: dict[str, Any] = {}
        if isinstance(data, Mapping):
            self._data, self._labels, self._fields = _taken_apart(data)
        elif isinstance(data, tuple):
            if len(data) != 2:
                raise RequestError(f"{ACCEPTED}, not a tuple of {len(data)}.")
            self._data, self._labels = data
        if isinstance(self._data, (Tensor, np.ndarray)):
            self._data = laid_out(self._data)
        elif isinstance(data, (tuple, str, bytes)) or not hasattr(self._data, "__getitem__"):
            raise RequestError(f"{ACCEPTED}, not {type(data).__name__}.")
        elif not hasattr(self._data, "__len__"):
            raise RequestError(f"{ACCEPTED}; {type(data).__name__} has no length.")
        if not len(self._data):
            raise RequestError("The data hold no images.")
        for field, values in {**self._fields, "labels": self._labels}.items():
            if values is not None and (count := _length(values)) != len(self._data):
                raise RequestError(
                    f"There must be one value of {field!r} for each of {len(self._data)} images, "
                    f"not {count}."
                )
        self.views = 1 if isinstance(self._data, Tensor) else Item.of(self._data[0]).views
        if self.views > 1 and (found := without_transform(self._data)) is not None:
            self._data, self.transform = found

    def native_size(self) -> int:
        """Return the shorter of height and width; 256 if it varies among items."""
        if isinstance(self._data, Tensor):
            return min(self._data.shape[-2:])
        sample = evenly_spaced(len(self._data), 8)
        return common_size(_short_side(self._data[row]) for row in sample)

    def count(self) -> int:
        """Return the number of items, some of which may be held out."""
        return len(self._data)

    def _deep(self, settings: DataSettings) -> Iterator[Values]:
        """Yield the values of images of more than 8 bits in a sample.

        Floats mean 0 to 1 in Python unless the range is to be measured.
        """
        for row in evenly_spaced(len(self._data), 32):
            image = Item.of(self._data[row]).image
            if isinstance(image, Image.Image):
                if image.mode.startswith(("I", "F")):
                    yield np.asarray(image)
            elif isinstance(image, (Tensor, np.ndarray)):
                values = _as_tensor(image)
                if values.dtype in DEEP or (
                    settings.range == "measure" and values.dtype != torch.uint8
                ):
                    yield values.numpy()

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data."""
        native, names = self.native_size(), getattr(self._data, "classes", None)
        images, labels, notes = self._data, self._labels, []
        reading, said = settled(settings, partial(self._deep, settings))
        fields: dict[str, Any] = {name: as_field(values) for name, values in self._fields.items()}
        whole: Dataset[Tensor] | None = None
        if isinstance(images, Tensor):
            images = _to_bytes(images, reading)
        else:
            channels = settings.channels or len(one_image(images[0], reading))
            items = Items(images, delivered_size(settings, native), channels, reading)
            if self.views > 1 and self.transform is None:
                notes.append(OF_VIEWS.format(count=self.views))
            changing = changes(items, evenly_spaced(len(items), 8))
            if changing and settings.cache == "auto":
                settings = attrs.evolve(settings, cache="off")
            if settings.fit == "whole":
                whole = items.at_own_size(settings.whole_side or DEFAULT_SIZE)
            images, theirs = _read(items, settings, workers)
            labels = theirs if labels is None else labels
            if changing:
                notes.append(FROZEN if isinstance(images, Tensor) else CHANGING)
                images, whole = images if isinstance(images, Tensor) else Changing(images), None
        targets = read_targets(labels, names)
        numbers, classes = (None, targets.classes)
        if targets.labels is not None:
            numbers, classes = numbered(targets.labels, len(images), names)
        # A data set, whose items are read anew each time, is only sampled.
        rows = evenly_spaced(len(images), 16)
        seen = [images] if isinstance(images, Tensor) else [images[row] for row in rows]
        if isinstance(images, Changing) and changes(images, rows):
            seen = []  # their own generators draw: only number and labels stay the same
        hot = targets.multi_hot
        beside = [digest_of_fields(fields)] if fields else []
        fields |= targets.fields
        split = Split(images, numbers, fields=fields, whole=whole, multi_hot=hot)
        return assemble(
            self.name,
            split,
            None,
            settings,
            native=native,
            channels=len(images[0]),
            classes=classes,
            fingerprint=digest(str(len(images)), split.truth, *seen, *beside),
            notes=(*notes, *said, *targets.notes),
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

    def at_own_size(self, side: int) -> Dataset[Tensor]:
        """Return the same images at their own sizes; see :func:`coview.data.decode.reduced`."""
        return WholeItems(self.data, side, self.channels, self.reading)


@attrs.frozen(eq=False)
class WholeItems(Dataset[Tensor]):
    """The images of a user's data set at their own sizes: one (channels, h, w) uint8 each."""

    data: Any
    side: int
    channels: int
    reading: Reading = Reading()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        image = one_image(self.data[index], self.reading, self.channels)
        return reduced(image, self.side, self.channels)


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
