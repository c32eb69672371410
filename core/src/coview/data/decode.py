"""Decoding files and PIL images into uint8 tensors of one size."""

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
from coview.terminal import shown

CHUNK = 64
"""Number of images decoded or resized at a time."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF")
"""The only formats decoded, whatever the file name: for others, PIL may start other programs."""
LONGEST = 8
"""Longer images are cropped to this ratio first: resizing 1 x 65,535 pixels takes gigabytes."""


def fit(images: Tensor, size: int, channels: int) -> Tensor:
    """Resize the short side (bilinear, antialiased), crop the centre, set the channels.

    An image whose long side is more than 8 times its short side is cropped to
    its middle first.

    Args:
        images: (..., C, H, W) uint8.
        size: pixels per side of the result.
        channels: as many as the images have; 1 for the luma of RGB images; or any
            number for grey images (the channel is repeated).

    Returns:
        (..., channels, size, size) uint8, perhaps a view.

    Raises:
        RequestError: the images' channels cannot be converted to that number.
    """
    have = images.shape[-3]
    if have not in (1, channels) and (have, channels) != (3, 1):
        raise RequestError(
            f"it has {have} channels, which cannot become data.channels = {channels}"
        )
    if images.shape[-2:] != (size, size):
        short = min(images.shape[-2:])
        if max(images.shape[-2:]) > LONGEST * short:
            images = tvf.center_crop(images, [min(s, LONGEST * short) for s in images.shape[-2:]])
        images = tvf.center_crop(tvf.resize(images, [size], antialias=True), [size])
    if have > channels:
        # Computed in float: in uint8 torchvision truncates, and white becomes 254.
        images = tvf.rgb_to_grayscale(images.float()).round().to(torch.uint8)
    return images.expand(*images.shape[:-3], channels, size, size)


def fit_all(images: Tensor, size: int, channels: int) -> Tensor:
    """Apply :func:`fit` to (N, C, H, W) chunk by chunk; return one contiguous tensor."""
    if images.shape[1:] == (channels, size, size):
        return images.contiguous()
    out = images.new_empty((len(images), channels, size, size))
    for source, place in zip(torch.split(images, CHUNK), torch.split(out, CHUNK), strict=True):
        place.copy_(fit(source, size, channels))
    return out


def pixels(image: Image.Image, channels: int) -> Tensor:
    """Return a PIL image of any mode as (channels, H, W) uint8.

    Alpha and transparent colours are dropped, not blended, as in torchvision's
    loader. Integers of more than 8 bits are scaled from 0 to 65535; floats from 0
    to 1, or from 0 to 255 if any is above 1. EXIF orientation is not applied.

    Raises:
        ValueError: values outside that range.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    image.load()
    # Otherwise PIL warns about palettes with alpha and looks for a substitute colour.
    image.info.pop("transparency", None)
    wanted = "L" if channels == 1 else "RGB"
    if image.mode != wanted:
        # Through RGB, as not every mode converts to grey directly.
        image = image.convert("RGB").convert(wanted)
    return cast(Tensor, tvf.pil_to_tensor(image))


def _eight_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(bands.eight_bits(np.asarray(image)))


def decode(path: str, size: int, channels: int) -> Tensor:
    """Return an image file, or an animation's first frame, as (channels, size, size) uint8.

    Raises:
        BadImageError: the image cannot be decoded, or exceeds PIL's safe size.
    """
    try:
        if bands.shape_of(path) is not None:
            return fit(bands.read(path), size, channels)
        return decode_plain(path, size, channels)
    except Exception as error:
        # A damaged file can make PIL raise nearly anything: OSError, SyntaxError, struct.error.
        raise named(path, error) from error


def named(name: str, error: Exception) -> BadImageError:
    """Return an error that says on one line which image cannot be decoded, and why."""
    why = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
    return BadImageError(f"The image {shown(name)} cannot be decoded: {why}.")


def decode_plain(file: str | BinaryIO, size: int, channels: int) -> Tensor:
    """Return an image in one of the usual formats as (channels, size, size) uint8.

    Args:
        file: a path, or an open file.
        size: pixels per side.
        channels: see :func:`fit`.

    Raises:
        Exception: of nearly any type, if the image is damaged.
    """
    with Image.open(file, formats=FORMATS) as image:
        bands.check_pixels(image.width, image.height)
        return fit(pixels(image, channels), size, channels)


@attrs.frozen(eq=False)
class Files(Dataset[Tensor]):
    """Image files decoded on demand: one (channels, size, size) uint8 tensor per index."""

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
    """Images (N, C, H, W) uint8 resized on demand, as all at once would not fit into memory."""

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
        workers: number of threads; 0: one per core.
        bad: records the images that cannot be read; others take their place.
            Without it, the first one is an error.

    Raises:
        BadImageError: an image cannot be read.
        CoviewError: too many images cannot be read.
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
        # In chunks, so that the first image that fails ends the work.
        for _ in pool.map(work, range(0, count, CHUNK)):
            pass
    return out
