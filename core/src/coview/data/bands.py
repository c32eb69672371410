"""Image files with any number of channels: NumPy arrays, TIFF stacks, colours of 16 bits.

Nothing is unpacked before its header has been compared with the limit of pixels.
"""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, BinaryIO

import attrs
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from coview.data.pillow import QUIET, STACKS, File, opened
from coview.data.values import Reading, Values, eight_bits

ARRAYS = frozenset({".npy", ".npz"})
COLOURS = ("RGB", "RGBA", "LA")
"""Modes in which Pillow keeps 8 of 16 bits."""
MOST_PAGES = 4096
SAMPLES_PER_PIXEL = 277
"""TIFF's tag."""


@attrs.frozen
class Header:
    """What the beginning of a file says about the image in it.

    Attributes:
        height, width: pixels, as stored.
        mode: Pillow's mode, ``"RGB"`` for example, or the type of an array's values.
        channels: of an array or stack; None for an ordinary image.
        deep: whether its values have more than 8 bits.
        bands: how many it has beside those that are used unless ``data.channels`` asks for all.
        format: Pillow's name of the format; empty for others.
    """

    height: int
    width: int
    mode: str
    channels: int | None = None
    deep: bool = False
    bands: int = 0
    format: str = ""


def check_pixels(width: int, height: int, pages: int = 1, limit: int | None = None) -> None:
    """Refuse an image that is larger than the limit.

    Args:
        width, height: pixels.
        pages: pages, or channels of an array.
        limit: most pixels; None: the default of ``data.max_pixels``.

    Raises:
        ValueError: there are more.
    """
    most = Reading().max_pixels if limit is None else limit
    if (needed := width * height * pages) > most:
        each = f"{pages} pages of " if pages > 1 else ""
        raise ValueError(
            f"it has {each}{width} x {height} pixels, more than data.max_pixels = {most}; to "
            f"allow it: --set data.max_pixels={needed}"
        )


def header(file: File, suffix: str) -> Header:
    """Return what an image's file says about it, without decoding it.

    Args:
        file: a path, or an open file.
        suffix: the ending of its name, in lower case.

    Raises:
        Exception: of nearly any type, if the file is damaged.
    """
    if suffix in ARRAYS:
        shapes = [(*_first(shape), dtype) for shape, dtype in _promised(file, suffix, None)]
        channels, deep = sum(shape[0] for shape in shapes), any(s[3] != "uint8" for s in shapes)
        return Header(shapes[0][1], shapes[0][2], str(shapes[0][3]), channels, deep)
    try:
        with opened(file, suffix) as image:
            pages = grey_pages(image) if suffix in STACKS else 1
            more = max(0, samples(image) - len(image.getbands()))
            stack = pages if pages > 1 else None
            size, kind = (image.height, image.width), image.format or ""
            return Header(*size, image.mode, stack, is_deep(image), more, kind)
    except UnidentifiedImageError:
        if suffix not in STACKS:
            raise
        with _tiff(file) as tiff:
            shape = _first(tiff.series[0].shape)
            return Header(shape[1], shape[2], str(tiff.series[0].dtype), shape[0], True)


def samples(image: Image.Image) -> int:
    """Return how many values a pixel of the file has, which may be more than Pillow reads."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(SAMPLES_PER_PIXEL, 0)) or len(image.getbands())


def is_deep(image: Image.Image) -> bool:
    """Return whether an image that has not been loaded yet has values of more than 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return True
    return any(";16" in _rawmode(tile) for tile in getattr(image, "tile", ())[:1])


def _rawmode(tile: Any) -> str:
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def is_stack(file: File, suffix: str, channels: int) -> bool:
    """Return whether a file must be read by :func:`layers`: an array, a stack, or more bands."""
    if suffix in ARRAYS:
        return True
    if suffix not in STACKS:
        return False
    try:
        with opened(file, suffix) as image:
            bands = len(image.getbands())
            return grey_pages(image) > 1 or (channels > 3 and bands < samples(image) == channels)
    except UnidentifiedImageError:
        return True


def read(file: File, suffix: str, reading: Reading) -> Tensor:
    """Return an array or stack as (C, H, W) uint8.

    The channels of an array are its first or last dimension, whichever is
    smaller. An ``.npz`` has the channels of all its arrays, in the file's order;
    a TIFF file of several grey pages has one channel per page. For values see
    :func:`coview.data.values.eight_bits`.

    Raises:
        ValueError: the file is not an image; the message says what it is.
    """
    found = layers(file, suffix, reading.max_pixels)
    if len({layer.shape[1:] for layer in found}) > 1:
        raise ValueError(f"its arrays differ in size: {[layer.shape for layer in found]}")
    bytes_ = [eight_bits(layer, reading) for layer in found]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(bytes_)))


def layers(file: File, suffix: str, limit: int) -> list[Values]:
    """Return the arrays of a file as they are stored, (channels, H, W) each."""
    found = _arrays(file, suffix, limit) if suffix in ARRAYS else _stack(file, suffix, limit)
    return [_channels_first(layer) for layer in found]


def _arrays(file: File, suffix: str, limit: int) -> list[Values]:
    _promised(file, suffix, limit)
    # Objects would be unpickled, which runs whatever code the file holds.
    if isinstance(file, str):
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    else:
        file.seek(0)
        found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return [found]
    with found:
        return [found[name] for name in found.files]


def _promised(
    file: File, suffix: str, limit: int | None
) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the shapes and types that a file's headers promise, if that is not too much."""
    if not isinstance(file, str):
        file.seek(0)
        found = list(_headers(file, suffix))
    else:
        with open(file, "rb") as opened_file:  # noqa: PTH123  # names of any bytes
            found = list(_headers(opened_file, suffix))
    if not found:
        raise ValueError("it holds no array")
    total = 0
    for shape, dtype in found:
        if dtype.kind not in "biuf":
            raise ValueError(f"its values are {dtype}, not numbers that a pixel can have")
        total += math.prod(shape)
    if limit is not None and total > limit:
        raise ValueError(
            f"it unpacks to {total} values, more than data.max_pixels = {limit}; to allow it: "
            f"--set data.max_pixels={total}"
        )
    return found


def _headers(file: BinaryIO, suffix: str) -> Iterator[tuple[tuple[int, ...], np.dtype[Any]]]:
    if suffix != ".npz":
        yield _header_of(file)
        return
    with zipfile.ZipFile(file) as packed:
        for name in packed.namelist():
            if name.endswith(".npy"):
                with packed.open(name) as member:
                    yield _header_of(member)


def _header_of(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version, np.lib.format.read_array_header_2_0)
    shape, _, dtype = read_header(file)
    return shape, dtype


def _first(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape with channels first: those are the smaller of first and last dimension."""
    whole = (1, *shape) if len(shape) == 2 else shape
    if len(whole) != 3 or 0 in whole:
        raise ValueError(f"its shape is {shape}, not (H, W), (H, W, C) or (C, H, W)")
    first, second, third = whole
    return (first, second, third) if first < third else (third, first, second)


def _channels_first(values: Values) -> Values:
    if _first(values.shape) == values.shape:
        return values
    return values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)


def grey_pages(image: Image.Image) -> int:
    """Return the number of pages if all are grey and of one size, else 1."""
    size, number = image.size, 0
    try:
        while len(image.getbands()) == 1 and image.size == size:
            number += 1
            if number > MOST_PAGES:
                raise ValueError(f"it has more than {MOST_PAGES} pages")
            image.seek(number)
        number = 1
    except EOFError:
        pass
    finally:
        image.seek(0)
    return number


def _stack(file: File, suffix: str, limit: int) -> list[Values]:
    try:
        with opened(file, suffix) as image:
            pages = grey_pages(image)
            if pages == 1 and samples(image) > len(image.getbands()):
                return [_samples(file, limit)]
            found = []
            check_pixels(image.width, image.height, pages, limit)
            for number in range(pages):
                image.seek(number)
                found.append(np.asarray(image))
            return found
    except UnidentifiedImageError:
        return [_samples(file, limit)]


def reads_tiff() -> bool:
    """Return whether tifffile is installed."""
    return find_spec("tifffile") is not None


def _tiff(file: File) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError(
            "it is a TIFF file with more channels or bits than PIL reads; pip install tifffile"
        ) from error
    # A file's fault is reported once, as the exception; tifffile would log it as well.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    if not isinstance(file, str):
        file.seek(0)
    return tifffile.TiffFile(file)


def _samples(file: File, limit: int) -> Values:
    """Read a TIFF file with more channels per pixel, or more bits, than PIL supports."""
    with _tiff(file) as tiff:
        series = tiff.series[0]
        channels, height, width = _first(series.shape)
        check_pixels(width, height, channels, limit)
        values: Values = series.asarray()
    return values


def deep_colour(file: File, suffix: str, limit: int) -> Values:
    """Return an image of several channels of 16 bits, of which Pillow keeps 8, as (C, H, W).

    Raises:
        ValueError: neither a PNG nor a TIFF file.
    """
    if suffix in STACKS:
        return _channels_first(_samples(file, limit))
    from torchvision.io import ImageReadMode, decode_image

    if isinstance(file, str):
        with open(file, "rb") as opened_file:  # noqa: PTH123  # names of any bytes
            content = opened_file.read()
    else:
        file.seek(0)
        content = file.read()
    bytes_ = torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))
    with QUIET:  # torchvision warns that it means to drop it
        values: Values = decode_image(bytes_, ImageReadMode.UNCHANGED).numpy()
    return values
