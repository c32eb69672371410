"""From files and PIL images to uint8 tensors of one size; damaged ones are named."""

from __future__ import annotations

import os
from collections.abc import Sized
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as tvf

from coview.data import bands
from coview.data.bad_images import BadImageError, BadImages, Readable
from coview.errors import RequestError

CHUNK = 64
"""Images that are decoded, or resized, in one go."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF")
"""What is decoded, whatever a file is called. PIL would start other programs for some formats."""
LONGEST = 8
"""Sides beyond this ratio are cut before resizing: 1 x 65,535 pixels would become gigabytes."""


def fit(images: Tensor, size: int, channels: int) -> Tensor:
    """Resize the short side (bilinear, antialiased), crop the centre, set the channels.

    Of an image more than 8 times as long as wide the middle is cut out first.

    Args:
        images: (..., C, H, W) uint8.
        size: pixels a side of the result.
        channels: as many as the images have, 1 (the luma of three), or any
            number of grey ones (repeated).

    Returns:
        (..., channels, size, size) uint8, perhaps a view.

    Raises:
        RequestError: the images have another number of channels.
    """
    have = images.shape[-3]
    if have not in (1, channels) and (have, channels) != (3, 1):
        raise RequestError(
            f"it has {have} channels, and data.channels = {channels} asks for others"
        )
    if images.shape[-2:] != (size, size):
        short = min(images.shape[-2:])
        if max(images.shape[-2:]) > LONGEST * short:
            images = tvf.center_crop(images, [min(s, LONGEST * short) for s in images.shape[-2:]])
        images = tvf.center_crop(tvf.resize(images, [size], antialias=True), [size])
    if have > channels:
        # By way of floats: in uint8 torchvision cuts fractions off, and white becomes 254.
        images = tvf.rgb_to_grayscale(images.float()).round().to(torch.uint8)
    return images.expand(*images.shape[:-3], channels, size, size)


def fit_all(images: Tensor, size: int, channels: int) -> Tensor:
    """Return :func:`fit` of (N, C, H, W) as one contiguous tensor, made chunk by chunk."""
    if images.shape[1:] == (channels, size, size):
        return images.contiguous()
    out = images.new_empty((len(images), channels, size, size))
    for source, place in zip(torch.split(images, CHUNK), torch.split(out, CHUNK), strict=True):
        place.copy_(fit(source, size, channels))
    return out


def pixels(image: Image.Image, channels: int) -> Tensor:
    """Return a PIL image of any mode as (channels, H, W) uint8.

    Alpha and transparent colours are dropped, not blended, as torchvision's
    loader does. Integers of more than 8 bits are taken to run to 65535; floats
    to 1, or to 255 where one is above 1. EXIF orientation is not applied.

    Raises:
        ValueError: values outside that range.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    image.load()
    # PIL warns of palettes with alpha, and would look for a substitute colour.
    image.info.pop("transparency", None)
    wanted = "L" if channels == 1 else "RGB"
    if image.mode != wanted:
        # By way of RGB: not every mode has a direct way to grey.
        image = image.convert("RGB").convert(wanted)
    return cast(Tensor, tvf.pil_to_tensor(image))


def _eight_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(bands.eight_bits(np.asarray(image)))


def decode(path: str, size: int, channels: int) -> Tensor:
    """Return the image in a file as (channels, size, size) uint8; of an animation, the first.

    Raises:
        BadImageError: it cannot be decoded, or is larger than PIL thinks safe.
    """
    try:
        if bands.shape_of(path) is not None:
            return fit(bands.read(path), size, channels)
        return decode_plain(path, size, channels)
    except Exception as error:
        # A damaged file can make PIL raise nearly anything: OSError, SyntaxError, struct.error.
        raise named(path, error) from error


def named(name: str, error: Exception) -> BadImageError:
    """Return the sentence that an image cannot be decoded, and why, on one line."""
    why = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
    return BadImageError(f"The image {name} cannot be decoded: {why}.")


def decode_plain(file: str | BinaryIO, size: int, channels: int) -> Tensor:
    """Return an image of the usual formats as (channels, size, size) uint8.

    Args:
        file: a path, or an open file.
        size: pixels a side.
        channels: see :func:`fit`.

    Raises:
        Exception: of nearly any kind, where it is damaged.
    """
    with Image.open(file, formats=FORMATS) as image:
        bands.check_pixels(image.width, image.height)
        return fit(pixels(image, channels), size, channels)


@attrs.frozen(eq=False)
class Files(Dataset[Tensor]):
    """Image files, decoded when asked: one (channels, size, size) uint8 tensor an index."""

    paths: tuple[str, ...]
    size: int
    channels: int
    decoder: str = "cpu"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.paths[index], self.size, self.channels)


@attrs.frozen(eq=False)
class Fitted(Dataset[Tensor]):
    """Images (N, C, H, W) uint8 that are resized when asked, as all at once would be too many."""

    images: Tensor
    size: int
    channels: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return fit(self.images[index], self.size, self.channels)


def decode_all(images: Dataset[Tensor], workers: int = 0, bad: BadImages | None = None) -> Tensor:
    """Return every image as one (N, C, S, S) uint8 tensor; threads decode, as PIL frees the GIL.

    Args:
        images: (C, S, S) uint8 each.
        workers: threads; 0: one for each core.
        bad: takes in which images cannot be read; others are in their places.
            Without it, the first ends the work.

    Raises:
        BadImageError: an image cannot be read.
        CoviewError: too many cannot.
    """
    count = len(cast(Sized, images))
    ledger = BadImages("stop") if bad is None else bad
    readable = Readable(images)
    first = readable[0][0]
    out = first.new_empty((count, *first.shape))

    def work(start: int) -> None:
        for row in range(start, min(start + CHUNK, count)):
            image, faults = readable[row]
            ledger.add(faults, count)
            out[row] = image

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # In pieces, so that the first image that fails ends the work.
        for _ in pool.map(work, range(0, count, CHUNK)):
            pass
    return out
