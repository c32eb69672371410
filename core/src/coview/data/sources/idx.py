"""MNIST's file format, IDX: the original files, Fashion-MNIST, and your own."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coview.data.assemble import assemble
from coview.data.base import DataSettings, ImageData, Split
from coview.data.splits import digest
from coview.errors import CoviewError, RequestError

DENSEST = 1032
"""How many bytes one byte of a gzip file may at most become."""
UNSIGNED_BYTE = 0x08
"""Type of MNIST's values, given by the third byte of a file."""


class Idx:
    """A folder with MNIST's four files, plain or gzipped, or one file of images.

    Labels and the test files (``t10k-``) may be missing.
    """

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Find the files at ``path``; ``download`` has no effect."""
        if path is None:
            raise RequestError("The data set idx needs a path: write idx:PATH.")
        self.name, place = f"idx:{path}", Path(path)
        if not place.exists():
            raise RequestError(
                f"There is no file or folder {path}. (Debian's package dataset-fashion-mnist "
                f"installs such files in /usr/share/datasets/fashion-mnist.)"
            )
        train = _named(place, "train-images", 3) if place.is_dir() else place
        if train is None:
            raise RequestError(f"The folder {path} holds no train-images-idx3-ubyte[.gz].")
        self.train: Path = train
        self.test = _named(place, "t10k-images", 3) if place.is_dir() else None

    def native_size(self) -> int:
        """Return the shorter of rows and columns."""
        return min(_header(self.train, 3)[1:])

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; in grey unless ``settings`` ask for colour."""
        train = _read_split(self.train)
        test = None if self.test is None else _read_split(self.test)
        splits = [train] if test is None else [train, test]
        highest = max((int(s.labels.max()) for s in splits if s.labels is not None), default=-1)
        return assemble(
            self.name,
            train,
            test,
            settings,
            native=self.native_size(),
            channels=1,
            classes=tuple(str(label) for label in range(highest + 1)),
            fingerprint=digest(*(t for s in splits for t in (s.resident, s.labels))),
        )


def _named(folder: Path, stem: str, dims: int) -> Path | None:
    """Return the file of that name in any of its usual spellings, or None."""
    names = [f"{stem}{dot}idx{dims}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_split(path: Path) -> Split:
    images = read_idx(path, 3)[:, None]
    if not images.numel():
        raise RequestError(f"The file {path} holds no images.")
    beside = _named(path.parent, path.name.partition("images")[0] + "labels", 1)
    if "images" not in path.name or beside is None:
        return Split(images)
    labels = read_idx(beside, 1).long()
    if len(labels) != len(images):
        raise CoviewError(
            f"{path} has {len(images)} images, but {beside} has {len(labels)} labels."
        )
    return Split(images, labels)


def read_idx(path: Path, dims: int) -> Tensor:
    """Return an IDX file of unsigned bytes as a uint8 tensor.

    Args:
        path: the file; it is decompressed if its name ends in .gz.
        dims: the number of dimensions it must have: 3 for images, 1 for labels.

    Raises:
        RequestError: the file is of another kind.
        CoviewError: the file is damaged.
    """
    shape = _header(path, dims)
    promised, most = math.prod(shape), path.stat().st_size * (DENSEST if _zipped(path) else 1)
    if promised > most:
        raise CoviewError(
            f"The file {path} is damaged: its header promises {promised} bytes of data, but it "
            f"has no more than {most}."
        )
    # One byte more than was promised, as a file may unpack to any length.
    body = _read(path, 4 + 4 * dims + promised + 1)[4 + 4 * dims :]
    if len(body) != promised:
        raise CoviewError(
            f"The file {path} is damaged: its header promises {promised} bytes of data, "
            f"but it has {len(body) if len(body) < promised else 'more'}."
        )
    return torch.from_numpy(np.frombuffer(body, np.uint8).copy()).reshape(shape)


def _header(path: Path, dims: int) -> tuple[int, ...]:
    head = _read(path, 4 + 4 * dims)
    if head[:4] != bytes((0, 0, UNSIGNED_BYTE, dims)):
        raise RequestError(
            f"The file {path} is not an IDX file of unsigned bytes in {dims} dimensions: it "
            f"begins with {head[:4].hex()}, not 000008{dims:02x}."
        )
    if len(head) < 4 + 4 * dims:
        raise CoviewError(f"The file {path} is damaged: it ends within its header.")
    return struct.unpack(f">{dims}I", head[4:])


def _zipped(path: Path) -> bool:
    return path.suffix == ".gz"


def _read(path: Path, most: int = -1) -> bytes:
    try:
        with gzip.open(path) if _zipped(path) else path.open("rb") as file:
            return file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise CoviewError(f"The file {path} cannot be read: {error}.") from error
