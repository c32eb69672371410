"""Images at their own sizes, for crops that are cut from the image itself.

Images of different sizes lie one after the other in a buffer of pixels, and their
extents say where each begins and how large it is: nothing is padded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from coview.data.bad_images import BadImageError, BadImages, Fault, Readable
from coview.data.decode import CHUNK, Files, decode_whole, read_file, reduced
from coview.data.splits import evenly_spaced
from coview.data.values import Reading
from coview.telling import progress

SAMPLED = 32
"""Number of images whose mean size stands for all."""

Pixels = tuple[Tensor, Tensor]
"""Pixels (P, C) uint8 of some images, and their extents (B, 3) int64."""


@attrs.frozen(eq=False)
class WholeFiles(Dataset[Tensor]):
    """Image files decoded on demand at their own sizes: one (channels, h, w) uint8 tensor each."""

    paths: tuple[str, ...]
    side: int
    channels: int
    reading: Reading = Reading()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        return read_file(
            path, lambda end: decode_whole(path, end, self.side, self.channels, self.reading)
        )


@attrs.frozen(eq=False)
class Reduced(Dataset[Tensor]):
    """Images in memory (N, C, H, W) at their own size: one (channels, h, w) uint8 tensor each."""

    images: Tensor
    side: int
    channels: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return reduced(self.images[index], self.side, self.channels)


def at_own_size(images: Any, side: int, channels: int) -> Dataset[Tensor] | None:
    """Return images at their own sizes, (channels, h, w) uint8 each; None: there are only squares.

    Args:
        images: the images of a split, of one size. Data sets of other kinds may have a
            method ``at_own_size(side)``.
        side: larger images are reduced, see :func:`coview.data.decode.reduced`.
        channels: number of channels of the images.
    """
    if isinstance(images, Tensor):
        return Reduced(images, side, channels)
    if isinstance(images, Files):
        return WholeFiles(images.paths, side, images.channels, images.reading)
    if isinstance(images, Subset):
        inner = at_own_size(images.dataset, side, channels)
        return None if inner is None else Subset(inner, images.indices)
    if isinstance(images, ConcatDataset):
        parts = [at_own_size(part, side, channels) for part in images.datasets]
        known = [part for part in parts if part is not None]
        return ConcatDataset(known) if len(known) == len(parts) else None
    made: Dataset[Tensor] | None = None
    if hasattr(images, "at_own_size"):
        made = images.at_own_size(side)
    return made


@attrs.frozen(eq=False)
class Buffer(Dataset[Tensor]):
    """Images in memory, each at its own size.

    Attributes:
        pixels: (P, C) uint8, the pixels of all images.
        extents: (N, 3) int64: the first of each image's pixels, its height and its width.
    """

    pixels: Tensor
    extents: Tensor

    def __len__(self) -> int:
        return len(self.extents)

    def __getitem__(self, index: int) -> Tensor:
        return picture(self.pixels, self.extents[index])

    @classmethod
    def read(
        cls, images: Any, most: int, workers: int = 0, bad: BadImages | None = None
    ) -> Buffer | None:
        """Read all images; None: they have more than ``most`` bytes.

        Args:
            images: gives (C, h, w) uint8 each.
            most: bytes.
            workers: number of threads; 0: one per core.
            bad: records the images that cannot be read, in whose place others are taken.
        """
        ledger = BadImages("stop") if bad is None else bad
        readable, count = Readable(images), len(images)
        found: list[Tensor] = []
        began = time.monotonic()
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            # In chunks, so that reading ends soon after the limit is reached.
            for start in range(0, count, CHUNK):
                rows = range(start, min(start + CHUNK, count))
                for image, faults in pool.map(readable.__getitem__, rows):
                    ledger.add(faults, count)
                    found.append(flat(image))
                    most -= found[-1].numel()
                if most < 0:
                    return None
                progress("images read at their own size", rows.stop, count, began)
        return cls(*buffered(found))


def picture(pixels: Tensor, extent: Tensor) -> Tensor:
    """Return the image (C, h, w) at an extent (3,), without a copy."""
    start, height, width = extent.tolist()
    return pixels[start : start + height * width].view(height, width, -1).permute(2, 0, 1)


def flat(image: Tensor) -> Tensor:
    """Return an image (C, h, w) as (h, w, C) in order: without a copy if it was decoded so."""
    return image.permute(1, 2, 0).contiguous()


def buffered(images: list[Tensor]) -> Pixels:
    """Return images (h, w, C) as one buffer, and their extents; the list is empty afterwards."""
    extents = extents_of([tuple(image.shape[:2]) for image in images])
    last, channels = extents[-1].tolist(), images[0].shape[2]
    pixels = torch.empty((last[0] + last[1] * last[2], channels), dtype=torch.uint8)
    for start, height, width in reversed(extents.tolist()):
        # Taken off the list, so that its memory is free as soon as it is copied.
        pixels[start : start + height * width] = images.pop().view(-1, channels)
    return pixels, extents


def extents_of(sizes: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the extents (B, 3) of images of these heights and widths, one after the other."""
    sides = torch.tensor(sizes, dtype=torch.int64).view(-1, 2)
    ends = sides.prod(1).cumsum(0)
    return torch.cat([(ends - sides.prod(1))[:, None], sides], 1)


def together(parts: list[Pixels], pin_memory: bool = False) -> Pixels:
    """Return several buffers as one; the list is empty afterwards."""
    if len(parts) == 1 and not pin_memory:
        return parts.pop()
    extents = extents_of([tuple(row[1:]) for _, own in parts for row in own.tolist()])
    end, channels = sum(len(pixels) for pixels, _ in parts), parts[0][0].shape[1]
    whole = torch.empty((end, channels), dtype=torch.uint8, pin_memory=pin_memory)
    while parts:  # each is freed as soon as it is copied
        pixels, _ = parts.pop()
        whole[end - len(pixels) : end] = pixels
        end -= len(pixels)
    return whole, extents


def collated(items: list[tuple[Tensor, list[Fault]]]) -> tuple[Tensor, Tensor, list[Fault]]:
    """Return items of :class:`coview.data.bad_images.Readable` as a buffer, with their faults."""
    faults = [fault for _, own in items for fault in own]
    images = [flat(image) for image, _ in items]
    items.clear()
    return *buffered(images), faults


def mean_pixels(images: Any) -> float:
    """Return the mean number of pixels of an image, of a sample of those that can be read."""
    if isinstance(images, Buffer):
        return len(images.pixels) / len(images)
    areas = [*_areas(images)]
    return sum(areas) / len(areas) if areas else 0.0


def _areas(images: Any) -> Iterator[int]:
    for row in evenly_spaced(len(images), SAMPLED):
        with suppress(BadImageError):  # they are recorded when a batch has them
            yield images[row][0].numel()
