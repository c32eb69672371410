"""The data set ``dicom``: every frame of the DICOM files below a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import attrs
from torch import Tensor

from coview.data.bands import Header
from coview.data.base import DataSettings
from coview.data.decode import Files, fit, named
from coview.data.sources.folder import Folder
from coview.data.sources.listing import Listing
from coview.data.sources.sample import Sample
from coview.data.splits import evenly_spaced
from coview.data.values import Reading, Values, settled
from coview.errors import RequestError
from coview_dicom.frames import About, NoPixelsError, about, frame, is_dicom, values

LOOKED_AT = 32
"""Number of files whose values and windows decide what the set's values mean."""
BETWEEN = "#"
"""Between a file's name and the number of a frame, from 0."""


@attrs.frozen(eq=False)
class Frames(Files):
    """Frames decoded on demand: one (channels, size, size) uint8 tensor per index.

    The paths are those of files, or ``FILE#NUMBER``.
    """

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            return fit(frame(*_place(path), self.reading), self.size, self.channels)
        except Exception as error:  # see coview.data.decode.decode
            raise named(path, error) from error


class Dicoms(Folder):
    """DICOM files below a folder, every frame an image; see the package's README."""

    kind: ClassVar[str] = "dicom"
    suffixes: ClassVar[frozenset[str]] = frozenset({".dcm", ".dicom", ".dic", ".ima", ""})
    files: ClassVar[type[Files]] = Frames

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Read the headers of the files below ``path``; ``download`` has no effect."""
        super().__init__(path, download)
        self._about: dict[str, About] = {}
        self.train = self._expanded(self.train)
        self.test = None if self.test is None else self._expanded(self.test)
        if not self.train.names:
            raise RequestError(f"The folder {path} holds no DICOM images to train on.")

    def _expanded(self, listing: Listing) -> Listing:
        """Return a listing of frames; what has no pixels is left out, and counted."""
        counts, others = [], Counter(listing.others)
        for name in listing.names:
            count, reason = self._frames(name)
            counts.append(count)
            others.update([reason] if reason else [])
        beside = None if listing.beside is None else self._expanded(listing.beside)
        if beside is not None:
            others.update(beside.others)
        classes = None
        if listing.classes is not None:
            pairs = zip(listing.classes, counts, strict=True)
            classes = tuple(name for name, count in pairs for _ in range(count))
        names = zip(listing.names, counts, strict=True)
        sizes = zip(listing.bytes, counts, strict=True)
        return attrs.evolve(
            listing,
            names=tuple(frame for name, count in names for frame in _frames_of(name, count)),
            bytes=tuple(size for size, count in sizes for _ in range(count)),
            classes=classes,
            beside=None if beside is None else attrs.evolve(beside, others={}),
            loose=0 if beside is None else len(beside.names),
            others=dict(others),
        )

    def _frames(self, name: str) -> tuple[int, str]:
        """Return how many images a file holds, and why none."""
        path = str(self.root / name)
        try:
            self._about[name] = about(path)
        except NoPixelsError:
            return 0, "DICOM without pixels"
        except Exception:  # of nearly any type; it is named when it is decoded
            ending = os.path.splitext(name)[1]
            return (1, "") if ending or is_dicom(path) else (0, "without an ending")
        return self._about[name].frames, ""

    @cached_property
    def _sample(self) -> Seen:
        beside = self.train.beside
        names = (*self.train.names, *(beside.names if beside else ()))
        paths = [str(self.root / name) for name in names]
        found = (
            (row, self._about.get(_place(names[row])[0]))
            for row in evenly_spaced(len(names), LOOKED_AT)
        )
        seen = {row: each for row, each in found if each is not None}
        if not seen:
            Frames((paths[0],), 8, 1)[0]  # says what is wrong with the first
        headers = tuple((row, _header(each)) for row, each in seen.items())
        return Seen(lambda row: (paths[row], ""), headers, tuple(seen.values()))


@attrs.frozen
class Seen(Sample):
    """Some frames of a set, and what the headers of their files say."""

    about: tuple[About, ...] = ()

    def channels(self, settings: DataSettings) -> int:
        """Return what the settings ask for, else three if any frame is in colour."""
        return settings.channels or (3 if any(each.colour for each in self.about) else 1)

    def reading(self, settings: DataSettings) -> tuple[Reading, tuple[str, ...]]:
        """Return how the set is read: by the files' windows if there are any."""
        windowed = sum(each.windowed for each in self.about if not each.colour)
        if settings.range == "auto" and windowed:
            return Reading.of(settings), (
                f"Windows of the files say what is black and white ({windowed} of "
                f"{len(self.about)} sampled files have one). For the same range everywhere: --set "
                "data.range=LOW,HIGH",
            )
        return settled(settings, lambda: self._deep(settings.max_pixels))

    def _deep(self, limit: int) -> Iterator[Values]:
        for (row, header), each in zip(self.seen, self.about, strict=True):
            if header.deep and not each.colour:
                try:
                    yield values(*_place(str(self.place(row)[0])), limit)
                except Exception:  # it is named when it is decoded
                    continue


def _header(found: About) -> Header:
    return Header(found.height, found.width, found.kind, found.samples, found.deep)


def _place(path: str) -> tuple[str, int]:
    """Return a file's path and the number of the frame."""
    file, mark, number = path.rpartition(BETWEEN)
    return (file, int(number)) if mark and number.isdecimal() else (path, 0)


def _frames_of(name: str, count: int) -> Iterator[str]:
    if count == 1 and BETWEEN not in name:
        return iter((name,))
    return (f"{name}{BETWEEN}{number}" for number in range(count))
