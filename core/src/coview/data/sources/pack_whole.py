"""Images at their own sizes in a pack, for crops that are cut from the image itself.

``NAME.pixels`` has the pixels of all images one after the other, C bytes each, and
``NAME.sizes`` each image's height and width, as two numbers of 32 bits (little-endian).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.decode import reduced
from coview.data.whole import Buffer, extents_of, picture

SIZES = np.dtype("<u4")


@attrs.frozen(eq=False, slots=False)
class PackedWhole(Dataset[Tensor]):
    """Memory-mapped images at their own sizes: one (channels, h, w) uint8 tensor each.

    Pickling sends the path to another process, not the images.

    Attributes:
        path: the pack's folder and the split's name.
        stored: number of channels in the file.
        side: larger images are reduced, see :func:`coview.data.decode.reduced`.
        channels: number of channels to give.
    """

    path: str
    stored: int
    side: int
    channels: int

    @cached_property
    def kept(self) -> Buffer:
        """All images as they are stored, memory-mapped."""
        sizes = np.fromfile(f"{self.path}.sizes", SIZES).reshape(-1, 2)
        extents = extents_of([(int(height), int(width)) for height, width in sizes])
        shape = (int(extents[:, 1:].prod(1).sum()), self.stored)
        # Copy-on-write, as torch does not accept read-only memory.
        mapped = np.memmap(f"{self.path}.pixels", np.uint8, "c")
        if mapped.size != shape[0] * shape[1]:
            raise ValueError(f"its pixels are {mapped.size} bytes, not {shape[0] * shape[1]}")
        return Buffer(torch.from_numpy(mapped.reshape(shape)), extents)

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("path", "stored", "side", "channels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Tensor:
        kept = self.kept
        return reduced(picture(kept.pixels, kept.extents[index]), self.side, self.channels)

    @property
    def bytes(self) -> int:
        """Of all pixels, as they are stored."""
        return self.kept.pixels.numel()


@contextmanager
def appended(stem: Path, done: int, channels: int) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a split's pixels and sizes to append to, cut to what was flushed.

    Args:
        stem: the folder, and the split's name.
        done: number of images that were flushed before.
        channels: of these images.
    """
    with _open(stem, "sizes", 2 * done * SIZES.itemsize) as sizes:
        known = np.fromfile(f"{stem}.sizes", SIZES, 2 * done).reshape(-1, 2).astype(np.int64)
        with _open(stem, "pixels", int(known.prod(1).sum()) * channels) as pixels:
            yield pixels, sizes


def sizes_of(extents: Tensor) -> memoryview:
    """Return what is written of extents (B, 3): each image's height and width."""
    return extents[:, 1:].numpy().astype(SIZES).data


def _open(stem: Path, kind: str, length: int) -> BinaryIO:
    file = stem.with_name(f"{stem.name}.{kind}").open("ab")
    os.truncate(file.fileno(), length)
    return file
