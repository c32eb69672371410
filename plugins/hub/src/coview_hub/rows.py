"""Images in the rows of a data set, decoded on demand."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.bad_images import BadImageError
from coview.data.decode import decode_file, decode_whole, named
from coview.data.pillow import File
from coview.data.values import Reading
from coview.errors import RequestError
from coview_hub.stream import Names, Stream, StreamError

if TYPE_CHECKING:
    import datasets

CHUNK = 1000
"""Rows of which names and lengths are read at a time."""


@attrs.frozen(eq=False)
class Rows(Dataset[Tensor]):
    """Images in a table: one (channels, size, size) uint8 tensor per index.

    Attributes:
        table: the column of images alone, undecoded: bytes, or a path.
        column: its name.
        names: a name for each row of the table.
        rows: (N,) the rows that are meant.
        size, channels: size and number of channels of the decoded images.
        reading: what the values in the files mean.
    """

    table: datasets.Dataset | Stream
    column: str
    names: Sequence[str]
    rows: np.ndarray[Any, Any]
    size: int = 256
    channels: int = 3
    reading: Reading = Reading()

    @classmethod
    def of(cls, table: datasets.Dataset, column: str, split: str, root: str) -> Rows:
        """Return the images of a split.

        Args:
            table: the split.
            column: the column of images.
            split: the split's name, by which images without a name are called.
            root: the folder that paths are told from.

        Raises:
            RequestError: the column holds no images.
        """
        from datasets import Image

        narrow = table.select_columns([column])
        try:
            narrow = narrow.cast_column(column, Image(decode=False))
        except Exception as error:  # of pyarrow, of several types
            raise RequestError(
                f"The column {column!r} does not hold images, but {table.features[column]}."
            ) from error
        names = tuple(
            f"{split}/{row}" if path is None else _told(path, root)
            for row, path in enumerate(_paths(narrow, column))
        )
        return cls(narrow, column, names, np.arange(len(narrow)))

    @classmethod
    def streamed(cls, stream: Stream, column: str, split: str) -> Rows:
        """Return the images of a stream.

        Raises:
            RequestError: the column holds no images.
        """
        narrow, count = stream.of(column), len(stream)
        return cls(narrow, column, Names(split, count), np.arange(count))

    @property
    def shuffled_within(self) -> int | None:
        """How far from its place an image may come in an epoch; None: anywhere."""
        return self.table.within if isinstance(self.table, Stream) else None

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: np.ndarray[Any, Any]) -> Rows:
        """Return the images at some of these rows."""
        return attrs.evolve(self, rows=self.rows[rows])

    def file(self, row: int) -> tuple[File, str]:
        """Return an image's bytes or path, undecoded, and the ending of its name."""
        value = self.table[int(self.rows[row])][self.column] or {}
        content, path = value.get("bytes"), value.get("path")
        ending = os.path.splitext(path or "")[1].lower()
        if content is not None:
            return io.BytesIO(content), ending
        if path is None:
            raise ValueError("there is no image in this row")
        return path, ending

    def name(self, row: int) -> str:
        """Return an image's name."""
        return self.names[int(self.rows[row])]

    def problem(self, row: int, error: Exception) -> BadImageError:
        """Return an error that names the image that cannot be read."""
        # PIL's message names the object that it read from, which helps nobody.
        told = re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", str(error))
        return named(self.name(row), ValueError(told))

    def __getitem__(self, row: int) -> Tensor:
        try:
            return decode_file(*self.file(row), self.size, self.channels, self.reading)
        except StreamError:
            raise
        except Exception as error:  # see coview.data.decode.decode
            raise self.problem(row, error) from error

    def at_own_size(self, side: int) -> Dataset[Tensor]:
        """Return the same images at their own sizes, for crops that are cut from them."""
        return WholeRows(self, side)

    def identity(self) -> Iterator[str]:
        """Yield what tells these images from others: their names, and lengths in bytes."""
        if isinstance(self.table, Stream):
            yield from self.table.identity()
            return
        lengths = list(_lengths(self.table, self.column))
        for row in self.rows.tolist():
            yield f"{self.names[row]} {lengths[row]}"


@attrs.frozen(eq=False)
class WholeRows(Dataset[Tensor]):
    """Images in a table at their own sizes: one (channels, h, w) uint8 tensor per index."""

    images: Rows
    side: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        own = self.images
        try:
            return decode_whole(*own.file(row), self.side, own.channels, own.reading)
        except StreamError:
            raise
        except Exception as error:  # see coview.data.decode.decode
            raise own.problem(row, error) from error


def _parts(table: datasets.Dataset, column: str, part: str) -> Iterator[Any]:
    """Yield the bytes or the paths of a column as Arrow arrays; nothing is copied or read."""
    import pyarrow.compute as pc

    for some in table.with_format("arrow").iter(CHUNK):
        yield pc.struct_field(some[column], part)


def _paths(table: datasets.Dataset, column: str) -> Iterator[str | None]:
    for paths in _parts(table, column, "path"):
        yield from paths.to_pylist()


def _lengths(table: datasets.Dataset, column: str) -> Iterator[int]:
    import pyarrow.compute as pc

    both = zip(_parts(table, column, "bytes"), _parts(table, column, "path"), strict=True)
    for contents, paths in both:
        lengths = pc.binary_length(contents).to_pylist()
        for length, path in zip(lengths, paths.to_pylist(), strict=True):
            yield _bytes(path) if length is None else length


def _bytes(path: str | None) -> int:
    try:
        return -1 if path is None else Path(path).stat().st_size
    except OSError:
        return -1


def _told(path: str, root: str) -> str:
    """Return a path as it is told: from the data set's folder if it lies there."""
    inside = os.path.relpath(path, root) if Path(path).is_absolute() else path
    return path if inside.startswith(os.pardir) else inside
