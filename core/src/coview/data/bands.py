"""Image files with any number of channels: NumPy arrays and TIFF stacks."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

ARRAYS = frozenset({".npy", ".npz"})
STACKS = frozenset({".tif", ".tiff"})
MOST_PAGES = 4096
MOST_BYTES = 1 << 30
"""Limit on an unpacked ``.npz``: a crafted file of a few kilobytes could fill all memory."""


def check_pixels(width: int, height: int, pages: int = 1) -> None:
    """Refuse images larger than PIL's limit; PIL itself only warns up to twice the limit.

    Raises:
        ValueError: there are more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height * pages > limit:
        each = f"{pages} pages of " if pages > 1 else ""
        raise ValueError(
            f"it has {each}{width} x {height} pixels; PIL.Image.MAX_IMAGE_PIXELS allows {limit}"
        )


def shape_of(path: str) -> tuple[int, int, int] | None:
    """Return channels, height and width of an array or stack; None for an ordinary image.

    Raises:
        ValueError: the file is not an image; the message says what it is.
    """
    suffix = Path(path).suffix.lower()
    if suffix in ARRAYS:
        shapes = [_channels_first(layer).shape for layer in _layers(path)]
        return sum(shape[0] for shape in shapes), shapes[0][1], shapes[0][2]
    if suffix not in STACKS:
        return None
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            pages = _grey_pages(image)
            return (pages, image.height, image.width) if pages > 1 else None
    except UnidentifiedImageError:
        samples = _channels_first(_samples(path))
        return samples.shape[0], samples.shape[1], samples.shape[2]


def read(path: str) -> Tensor:
    """Return an array or stack as (C, H, W) uint8.

    The channels of an array are its first or last dimension, whichever is
    smaller. An ``.npz`` has the channels of all its arrays, in the file's order;
    a TIFF file of several grey pages has one channel per page. For values see
    :func:`eight_bits`.

    Raises:
        ValueError: the file is not an image; the message says what it is.
    """
    if Path(path).suffix.lower() in ARRAYS:
        layers = _layers(path)
    else:
        layers = _stack(path)
    layers = [_channels_first(layer) for layer in layers]
    if len({layer.shape[1:] for layer in layers}) > 1:
        raise ValueError(f"its arrays differ in size: {[layer.shape for layer in layers]}")
    return torch.from_numpy(np.ascontiguousarray(np.concatenate([*map(eight_bits, layers)])))


def eight_bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return values as uint8.

    Integers of more than 8 bits are scaled from 0 to 65535; floats from 0 to 1,
    or from 0 to 255 if any is above 1.

    Raises:
        ValueError: values outside that range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "biuf":
        raise ValueError(f"its values are {values.dtype}, not numbers that a pixel can have")
    floating = values.dtype.kind == "f"
    low, high = float(values.min()), float(values.max())
    top = (1 if high <= 1 else 255) if floating or values.dtype.kind == "b" else 65535
    # Written so that NaN is refused.
    if not 0 <= low <= high <= top:
        raise ValueError(f"its values run from {low:g} to {high:g}, not within 0 to {top}")
    return (values.astype(np.float64) * (255 / top)).round().astype(np.uint8)


def _layers(path: str) -> list[np.ndarray[Any, Any]]:
    if path.lower().endswith(".npz"):
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > MOST_BYTES:
            raise ValueError(f"it unpacks to {unpacked} bytes, more than {MOST_BYTES}")
    # Objects would be unpickled, which runs whatever code the file holds.
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(found, np.ndarray):
        return [found]
    with found:
        layers = [found[name] for name in found.files]
    if not layers:
        raise ValueError("it holds no array")
    return layers


def _channels_first(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"its shape is {values.shape}, not (H, W), (H, W, C) or (C, H, W)")
    return values if values.shape[0] < values.shape[2] else np.moveaxis(values, 2, 0)


def _grey_pages(image: Image.Image) -> int:
    """Return the number of pages if all are grey and of one size, else 1."""
    pages, size = getattr(image, "n_frames", 1), image.size
    if pages > MOST_PAGES:
        raise ValueError(f"it has {pages} pages, more than {MOST_PAGES}")
    for number in range(pages):
        image.seek(number)
        if len(image.getbands()) > 1 or image.size != size:
            pages = 1
            break
    image.seek(0)
    return pages


def _stack(path: str) -> list[np.ndarray[Any, Any]]:
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            layers, pages = [], _grey_pages(image)
            check_pixels(image.width, image.height, pages)
            for number in range(pages):
                image.seek(number)
                layers.append(np.asarray(image))
            return layers
    except UnidentifiedImageError:
        return [_samples(path)]


def _samples(path: str) -> np.ndarray[Any, Any]:
    """Read a TIFF file with more channels per pixel than PIL supports."""
    try:
        import tifffile
    except ImportError as error:
        raise ValueError(
            "it is a TIFF file with more channels than PIL reads; pip install tifffile"
        ) from error
    # A file's fault is reported once, as the exception; tifffile would log it as well.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    values: np.ndarray[Any, Any] = tifffile.imread(path)
    return values
