"""A sample of a set's files, whose headers tell sizes, modes and channels before any is decoded."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs

from coview.data import bands
from coview.data.assemble import Statistics, common_size
from coview.data.bad_images import BadImageError
from coview.data.bands import Header
from coview.data.base import IMAGENET_MEAN, IMAGENET_STD, DataSettings
from coview.data.decode import deep_values, named
from coview.data.pillow import File
from coview.data.splits import evenly_spaced
from coview.data.values import Reading, Values, settled

LOOKED_AT = 32
"""Number of images whose headers are read."""
Place = Callable[[int], tuple[File, str]]
"""Gives the file of an image, and its ending in lower case."""


@attrs.frozen
class Sample:
    """Some images of a set, and what their headers say.

    Attributes:
        place: where each of the set's images lies.
        seen: the number and header of each image of the sample that can be read.
    """

    place: Place
    seen: tuple[tuple[int, Header], ...]

    @classmethod
    def of(
        cls, count: int, place: Place, problem: Callable[[int, Exception], BadImageError]
    ) -> Sample:
        """Look at a sample of ``count`` images.

        Args:
            count: number of images.
            place: see :class:`Sample`.
            problem: names an image that cannot be read.

        Raises:
            BadImageError: no image of the sample can be read.
        """
        seen, problems = [], []
        for row in evenly_spaced(count, LOOKED_AT):
            try:
                seen.append((row, bands.header(*place(row))))
            except Exception as error:  # see coview.data.decode.decode
                problems.append(problem(row, error))
        if not seen:
            raise problems[0]
        return cls(place, tuple(seen))

    @classmethod
    def of_files(cls, paths: Sequence[str]) -> Sample:
        """Look at a sample of image files.

        Raises:
            BadImageError: none of them can be read.
        """
        return cls.of(
            len(paths), partial(_placed, paths), lambda row, error: named(paths[row], error)
        )

    @property
    def headers(self) -> list[Header]:
        """The headers alone."""
        return [header for _, header in self.seen]

    def native_size(self) -> int:
        """Return the short side if the images share one of up to 64, else 256."""
        return common_size(min(header.height, header.width) for header in self.headers)

    @property
    def stored(self) -> int | None:
        """Channels of the first array or stack; None: there are only ordinary images."""
        counts = (header.channels for header in self.headers)
        return next((count for count in counts if count is not None), None)

    @property
    def published(self) -> Statistics | None:
        """Statistics of photographs; None for arrays, which need not be any."""
        return None if self.stored else (IMAGENET_MEAN, IMAGENET_STD)

    def channels(self, settings: DataSettings) -> int:
        """Return what the settings ask for, else what arrays have, else three."""
        return settings.channels or self.stored or 3

    def reading(self, settings: DataSettings) -> tuple[Reading, tuple[str, ...]]:
        """Return how the set is read, and sentences; see :func:`coview.data.values.settled`."""
        return settled(settings, lambda: self._deep(settings.max_pixels))

    def _deep(self, limit: int) -> Iterator[Values]:
        """Yield the values of images of more than 8 bits that can be read."""
        for row, header in self.seen:
            if header.deep:
                try:
                    yield from deep_values(*self.place(row), limit)
                except Exception:  # it is named when it is decoded
                    continue

    def notes(self, channels: int) -> Iterator[str]:
        """Yield sentences on what the images have that is not used."""
        more = [header for header in self.headers if header.bands]
        if more and channels < 4:
            has = more[0].bands + len(more[0].mode)
            yield (
                f"{len(more)} of {len(self.seen)} sampled images have {has} bands, of which "
                f"{len(more[0].mode)} are used. For all: --set data.channels={has}"
            )
        half = [
            header
            for header in self.headers
            if header.deep and header.mode in bands.COLOURS and header.channels is None
        ]
        if not bands.reads_tiff() and any(header.format == "TIFF" for header in half):
            yield (
                "Colours of 16 bits in TIFF files are cut to their upper 8 bits. To use all: "
                "pip install tifffile"
            )

    def facts(self) -> dict[str, Any]:
        """Return modes and sizes, for a summary."""
        sides = [(header.width, header.height) for header in self.headers]
        return {
            "sampled": len(self.seen),
            "modes": dict(Counter(header.mode for header in self.headers)),
            "smallest": list(min(sides, key=math.prod)),
            "largest": list(max(sides, key=math.prod)),
        }


def _placed(paths: Sequence[str], row: int) -> tuple[File, str]:
    return paths[row], os.path.splitext(paths[row])[1].lower()
