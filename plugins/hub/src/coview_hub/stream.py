"""A data set that is read from its beginning to its end, as the table of which rows are asked for.

Images of a stream are shuffled within a distance: an image comes at most ``within`` places before
or after its place in the stream, by the order that the loader draws from the seed. So a window of
that many encoded images is all that is kept, and a run that goes on asks for the very rows that
it would have asked for. The window is then moved there by the library's own ``state_dict``,
which is noted along the way and kept in the cache. Without the note, reading begins anew: slower,
and the same images.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch.utils.data import get_worker_info

from coview.caches import own_folder
from coview.errors import CoviewError, RequestError
from coview.files import replacing

if TYPE_CHECKING:
    from datasets import IterableDataset

LOOKED_AT = 32
"""Images at the beginning that tell this stream from others, with its name and length."""


class StreamError(CoviewError):
    """The stream cannot be read further; no single image is at fault."""


class Stream:
    """A stream's rows by their number; cheap as long as numbers hardly decrease.

    Attributes:
        name: the data set's name as users wrote it.
        within: how far an image may be from its place in the stream.
        features: the type of each column.
    """

    def __init__(self, source: IterableDataset, name: str, count: int, within: int) -> None:
        """Take a stream that is not shuffled, of ``count`` rows at least."""
        if source.features is None:
            raise RequestError(
                f"{name}: a stream of this kind does not say what its columns are. Leave out "
                "stream=, or store it as Parquet."
            )
        self.name, self.within, self.features = name, within, source.features
        self._source, self._count = source, count
        self._rows: dict[int, dict[str, Any]] = {}
        self._next = 0
        self._reading: Any = iter(())
        self._states: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._count

    def of(self, column: str) -> Stream:
        """Return the column of images alone, undecoded.

        Raises:
            RequestError: the column holds no images.
        """
        from datasets import Image

        narrow = self._source.select_columns([column])
        try:
            narrow = narrow.cast_column(column, Image(decode=False))
        except Exception as error:
            raise RequestError(
                f"The column {column!r} does not hold images, but {self.features[column]}."
            ) from error
        found = Stream(narrow, self.name, self._count, self.within)
        found._states = _noted(found)
        return found

    def __getitem__(self, row: int) -> dict[str, Any]:
        if get_worker_info() is not None:
            raise StreamError("A stream is read by the process that trains: leave out --workers.")
        start = max(0, row - self.within)
        if row not in self._rows and (row < self._next or self._place(start) > self._next):
            self._begin(start)
        while self._next <= row:
            self._advance()
        return self._rows[row]

    def _advance(self) -> None:
        if self._next == 0:
            self._restart(0)
        try:
            value = next(self._reading)
        except StopIteration:
            raise StreamError(
                f"{self.name} ended after {self._next} images: write count={self._next}."
            ) from None
        except Exception as error:  # of the network, of a file format: of many types
            raise StreamError(
                f"{self.name} cannot be read beyond image {self._next} "
                f"({type(error).__name__}: {error})."
            ) from error
        self._rows[self._next] = value
        self._rows.pop(self._next - self.within - 1, None)
        self._next += 1
        if self._next % self.within == 0 and self._next not in self._states:
            self._states[self._next] = self._source.state_dict()
            _note(self)

    def _place(self, row: int) -> int:
        """Return the last place before a row from which reading can begin."""
        return max((noted for noted in self._states if noted <= row), default=0)

    def _begin(self, row: int) -> None:
        """Go to a row, from the last noted place before it."""
        self._restart(self._place(row))
        while self._next < row:
            self._advance()

    def _restart(self, place: int) -> None:
        self._rows.clear()
        self._source.load_state_dict(self._states[place] if place else None)
        self._reading, self._next = iter(self._source), place
        # A generator that the interpreter's end finds open complains.
        weakref.finalize(self, self._reading.close)

    def identity(self) -> Iterator[str]:
        """Yield what tells this stream from others: its length and its first images."""
        yield f"{self.name} {self._count}"
        for row in range(min(LOOKED_AT, self._count)):
            for value in self[row].values():
                yield hashlib.sha256((value or {}).get("bytes") or b"").hexdigest()


class Names(Sequence[str]):
    """A name for each row, made when it is asked for."""

    def __init__(self, split: str, count: int) -> None:
        self._split, self._count = split, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return [self[place] for place in range(self._count)[row]]
        return f"{self._split}/{row}"


def _file(stream: Stream) -> Path:
    about = f"{stream.name} {len(stream)} {stream.within} {stream.features}"
    key = hashlib.blake2b(about.encode(), digest_size=16).hexdigest()
    return own_folder("streams") / f"{key}.json"


def _noted(stream: Stream) -> dict[int, Any]:
    """Return the places that earlier readings noted; none if there is no cache."""
    with suppress(OSError, ValueError, CoviewError):
        return {int(k): v for k, v in json.loads(_file(stream).read_text("utf-8")).items()}
    return {}


def _note(stream: Stream) -> None:
    with suppress(OSError, CoviewError), replacing(_file(stream)) as path:
        path.write_text(json.dumps(stream._states), encoding="utf-8")
