"""Decoding files and PIL images into uint8 tensors of one size."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import cast

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as tvf

from coview.data import bands
from coview.data.bad_images import BadImageError, BadImages, Readable
from coview.data.pillow import FORMATS as FORMATS
from coview.data.pillow import File, opened
from coview.data.values import Reading, Values, eight_bits
from coview.errors import RequestError
from coview.telling import progress
from coview.terminal import shown

CHUNK = 64
"""Number of images decoded or resized at a time."""
LARGE = 89_478_485
"""Pixels above which a JPEG file is decoded at a fraction of its size."""
METADATA = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
"""Where an image's orientation may be found."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned for each value of EXIF's orientation."""
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
    _refuse_channels(images.shape[-3], channels)
    if images.shape[-2:] != (size, size):
        images = tvf.center_crop(tvf.resize(_middle(images), [size], antialias=True), [size])
    return _with_channels(images, channels)


def reduced(images: Tensor, side: int, channels: int) -> Tensor:
    """Return images at their own size, or that divided by a whole number; set the channels.

    An image whose long side is more than 8 times its short side is cropped to its middle.

    Args:
        images: (..., C, H, W) uint8.
        side: the result has at least its square as pixels, if the images do, and
            fewer than four times as many.
        channels: see :func:`fit`.

    Returns:
        (..., channels, h, w) uint8, perhaps a view.

    Raises:
        RequestError: the images' channels cannot be converted to that number.
    """
    _refuse_channels(images.shape[-3], channels)
    images = _middle(images)
    factor = _factor(images.shape[-1], images.shape[-2], side)
    if factor > 1:
        pooled = avg_pool2d(images.float(), factor, ceil_mode=True, count_include_pad=False)
        images = pooled.round().to(torch.uint8)
    return _with_channels(images, channels)


def _factor(width: int, height: int, side: int) -> int:
    """Return the number that an image's sides may be divided by, at least 1."""
    return max(1, math.floor(math.sqrt(width * height) / side))


def _refuse_channels(have: int, channels: int) -> None:
    if have not in (1, channels) and (have, channels) != (3, 1):
        raise RequestError(
            f"it has {have} channels, which cannot become data.channels = {channels}"
        )


def _middle(images: Tensor) -> Tensor:
    """Crop images that are far longer than wide."""
    height, width = images.shape[-2:]
    most = LONGEST * min(height, width)
    if max(height, width) <= most:
        return images
    cropped: Tensor = tvf.center_crop(images, [min(height, most), min(width, most)])
    return cropped


def _with_channels(images: Tensor, channels: int) -> Tensor:
    if images.shape[-3] > channels:
        # Computed in float: in uint8 torchvision truncates, and white becomes 254.
        images = tvf.rgb_to_grayscale(images.float()).round().to(torch.uint8)
    return images.expand(*images.shape[:-3], channels, *images.shape[-2:])


def fit_all(images: Tensor, size: int, channels: int) -> Tensor:
    """Apply :func:`fit` to (N, C, H, W) chunk by chunk; return one contiguous tensor."""
    if images.shape[1:] == (channels, size, size):
        return images.contiguous()
    out = images.new_empty((len(images), channels, size, size))
    for source, place in zip(torch.split(images, CHUNK), torch.split(out, CHUNK), strict=True):
        place.copy_(fit(source, size, channels))
    return out


def pixels(image: Image.Image, channels: int, reading: Reading | None = None) -> Tensor:
    """Return a PIL image of any mode as (channels, H, W) uint8.

    Args:
        image: loaded or not.
        channels: 1: grey; 2 or 4, if the image has as many bands: those, alpha among
            them, as they are stored; else red, green and blue.
        reading: what lies behind transparent pixels, what deep values mean, and
            whether EXIF orientation is applied.

    Raises:
        ValueError: values outside the range that ``reading`` gives.
    """
    how = reading or Reading()
    image.load()
    if how.orientation == "apply" and (turn := turn_of(image)) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image, how)
    if channels == 4 and image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")
    if channels in (2, 4) and len(image.getbands()) == channels:
        return cast(Tensor, tvf.pil_to_tensor(image))
    if how.colour is not None and image.has_transparency_data:
        image = _flattened(image, how.colour)
    if "transparency" in image.info:
        # Otherwise PIL looks for a substitute colour. A copy, as the image may be the user's.
        image = image.copy()
        del image.info["transparency"]
    grey = channels == 1 or (channels > 3 and image.mode in ("1", "L"))
    wanted = "L" if grey else "RGB"
    if image.mode != wanted:
        # Through RGB, as not every mode converts to grey directly.
        image = image.convert("RGB").convert(wanted)
    return cast(Tensor, tvf.pil_to_tensor(image))


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how a loaded image must be turned by its EXIF data; None: not at all."""
    if image.info.keys() & METADATA:  # most images have none: even looking costs time
        with suppress(Exception):  # damaged metadata do not make a damaged image
            return TURNS.get(image.getexif().get(ORIENTATION, 1))
    return None


def _flattened(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Lay an image with alpha or a transparent colour over a background."""
    laid = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(ground, laid).convert("RGB")


def _eight_bits(image: Image.Image, reading: Reading) -> Image.Image:
    values = np.asarray(image)
    made = Image.fromarray(eight_bits(values, reading))
    through = image.info.get("transparency")
    if isinstance(through, int):
        alpha = Image.fromarray(np.where(values == through, 0, 255).astype(np.uint8))
        made = Image.merge("LA", (made, alpha))
    return made


def decode(path: str, size: int, channels: int, reading: Reading | None = None) -> Tensor:
    """Return an image file, or an animation's first frame, as (channels, size, size) uint8.

    Raises:
        BadImageError: the image cannot be decoded, or is larger than the limit.
    """
    return read_file(path, lambda suffix: decode_file(path, suffix, size, channels, reading))


def read_file(path: str, decoding: Callable[[str], Tensor]) -> Tensor:
    """Call ``decoding`` with the ending of a path, in lower case.

    Raises:
        BadImageError: the image cannot be decoded; the message names it.
    """
    try:
        return decoding(os.path.splitext(path)[1].lower())
    except Exception as error:
        # A damaged file can make PIL raise nearly anything: OSError, SyntaxError, struct.error.
        raise named(path, error) from error


def named(name: str, error: Exception) -> BadImageError:
    """Return an error that says on one line which image cannot be decoded, and why."""
    why = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
    return BadImageError(f"The image {shown(name)} cannot be decoded: {why}.")


def decode_file(
    file: File, suffix: str, size: int, channels: int, reading: Reading | None = None
) -> Tensor:
    """Return an image, array or stack as (channels, size, size) uint8.

    Args:
        file: a path, or an open file.
        suffix: the ending of its name, in lower case.
        size: pixels per side.
        channels: see :func:`fit` and :func:`pixels`.
        reading: what the file's values mean.

    Raises:
        Exception: of nearly any type, if the image is damaged.
    """

    def drafted(width: int, height: int) -> tuple[int, int] | None:
        return (2 * size, 2 * size) if width * height > LARGE else None

    return fit(_decoded(file, suffix, channels, reading or Reading(), drafted), size, channels)


def decode_whole(
    file: File, suffix: str, side: int, channels: int, reading: Reading | None = None
) -> Tensor:
    """Return an image, array or stack as (channels, h, w) uint8, see :func:`reduced`.

    JPEG files are decoded to a half, a quarter or an eighth where that has pixels enough.

    Args:
        file, suffix, channels, reading: see :func:`decode_file`.
        side: see :func:`reduced`.

    Raises:
        Exception: of nearly any type, if the image is damaged.
    """

    def drafted(width: int, height: int) -> tuple[int, int] | None:
        factor = _factor(width, height, side)
        return (width // factor, height // factor) if factor > 1 else None

    return reduced(_decoded(file, suffix, channels, reading or Reading(), drafted), side, channels)


def _decoded(
    file: File,
    suffix: str,
    channels: int,
    how: Reading,
    drafted: Callable[[int, int], tuple[int, int] | None],
) -> Tensor:
    """Return an image (C, H, W) uint8; ``drafted`` tells the size that suffices of a JPEG file."""
    if bands.is_stack(file, suffix, channels):
        return bands.read(file, suffix, how)
    with opened(file, suffix) as image:
        bands.check_pixels(image.width, image.height, limit=how.max_pixels)
        if how.window is not None and image.mode in bands.COLOURS and bands.is_deep(image):
            image = _deep_colours(image, file, suffix, how)
        elif image.format == "JPEG" and (size := drafted(image.width, image.height)):
            # libjpeg decodes to a half, quarter or eighth of the size in as much less memory.
            image.draft(None, size)
        return pixels(image, channels, how)


def decode_plain(file: File, size: int, channels: int) -> Tensor:
    """Return an image in one of the usual formats as (channels, size, size) uint8.

    :func:`decode_file` without a name or settings, as plugins of version 0.1 call it.
    """
    return decode_file(file, "", size, channels)


def deep_values(file: File, suffix: str, limit: int) -> list[Values]:
    """Return the values of more than 8 bits in an image file as they are stored; alpha is left out.

    Args:
        file: a path, or an open file.
        suffix: the ending of its name, in lower case.
        limit: most pixels.

    Raises:
        Exception: of nearly any type, if the image is damaged.
    """
    if bands.is_stack(file, suffix, 1):
        return [part for part in bands.layers(file, suffix, limit) if part.dtype != np.uint8]
    with opened(file, suffix) as image:
        bands.check_pixels(image.width, image.height, limit=limit)
        if not bands.is_deep(image):
            return []
        if image.mode not in bands.COLOURS:
            return [np.asarray(image)]
    values = bands.deep_colour(file, suffix, limit)
    return [values[: len(values) - (len(values) in (2, 4))]]


def _deep_colours(image: Image.Image, file: File, suffix: str, reading: Reading) -> Image.Image:
    """Return an image of several channels of 16 bits with the range of the set."""
    try:
        values = bands.deep_colour(file, suffix, reading.max_pixels)
    except ImportError as error:
        raise ValueError(f"torchvision cannot read its values of 16 bits ({error})") from error
    colours = len(values) - (len(values) in (2, 4))
    alpha = eight_bits(values[colours:]) if colours < len(values) else values[:0].astype(np.uint8)
    whole = np.concatenate([eight_bits(values[:colours], reading), alpha])
    made = Image.fromarray(np.ascontiguousarray(np.moveaxis(whole, 0, 2)))
    made.info = dict(image.info)
    return made


@attrs.frozen(eq=False)
class Files(Dataset[Tensor]):
    """Image files decoded on demand: one (channels, size, size) uint8 tensor per index."""

    paths: tuple[str, ...]
    size: int
    channels: int
    decoder: str = "cpu"
    reading: Reading = Reading()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.paths[index], self.size, self.channels, self.reading)


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

    began = time.monotonic()
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # In chunks, so that the first image that fails ends the work.
        for done, _ in enumerate(pool.map(work, range(0, count, CHUNK)), 1):
            progress("images read", min(done * CHUNK, count), count, began)
    return out
