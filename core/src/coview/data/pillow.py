"""Opening image files with Pillow: which formats, by which endings, and without its own limit."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "JPEG2000", "QOI")
"""Formats that are known by their content, whatever the file's name."""
USUAL = frozenset(
    {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".jfif", ".avif"}
)
"""Endings of those that most folders have, known without loading all of Pillow."""
STACKS = frozenset({".tif", ".tiff"})
REFUSED = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC", "IMT"})
"""Formats for which Pillow starts another program, or that it knows but cannot decode."""

File = str | BinaryIO
"""A path, or an open file."""


IGNORED = (
    ("ignore", None, Warning, re.compile(r"PIL\."), 0),
    (
        "ignore",
        re.compile("The image decoding and encoding capabilities"),
        Warning,
        None,
        0,
    ),
)
"""What ``warnings.filterwarnings`` makes of them, which takes its time for every image."""


class _Quiet:
    """Pillow without its warnings and its own limit of pixels, which ours replaces.

    Both belong to the whole process, so the first thread that enters changes
    them and the last one that leaves restores them.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._limit: int | None = None
        self._warnings: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.filters[:0] = IGNORED  # type: ignore[index]
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._warnings.__exit__(None, None, None)


QUIET = _Quiet()


@cache
def endings() -> dict[str, str]:
    """Return the endings, in lower case, of all files that Pillow decodes, with their formats."""
    known = Image.registered_extensions()  # loads all of Pillow's plugins
    readable = {*Image.OPEN, "MPO"} - REFUSED
    return {ending.lower(): kind for ending, kind in known.items() if kind in readable}


def is_image(ending: str) -> bool:
    """Return whether Pillow decodes files with this ending (in lower case)."""
    return ending in USUAL or ending in endings()


@contextmanager
def opened(file: File, suffix: str | None = None) -> Iterator[Image.Image]:
    """Open an image quietly.

    Args:
        file: a path, or an open file.
        suffix: the ending of the file's name, which chooses among formats that
            cannot be told by their content; None: that of the path.

    Raises:
        UnidentifiedImageError: it is no image, or of a format that is refused.
    """
    ending = (os.path.splitext(str(file))[1] if suffix is None else suffix).lower()
    with QUIET:
        if isinstance(file, str):
            # Given a path, Pillow leaves a file open that cannot be read, and maps one of a
            # stack, which scrambles it if EXIF data turn it.
            with open(file, "rb") as handle, _identified(handle, ending) as image:  # noqa: PTH123
                yield image
        else:
            with _identified(file, ending) as image:
                yield image


def _identified(file: File, ending: str) -> ImageFile.ImageFile:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if ending in USUAL or (kind := endings().get(ending)) is None:
            raise
        image = Image.open(file, formats=("JPEG" if kind == "MPO" else kind,))
    # Pillow joins the pieces of a row (8 bytes a pixel at most) again with each that it reads.
    image.decodermaxblock = max(image.decodermaxblock, 8 * image.width)
    return image
