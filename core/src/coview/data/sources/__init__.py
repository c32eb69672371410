"""Finding the source for what a user wrote after ``--data`` or passed in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from coview.data.base import Source
from coview.data.sources.arrays import Objects
from coview.errors import RequestError, unknown
from coview.registry import entries, find

LISTS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".lst"})
"""Endings of files that list images."""


def parse_source(text: str) -> tuple[str, str | None]:
    """Split ``SOURCE[:PATH]`` into a data set's name and a path.

    A path alone is a folder of images, one that ``coview pack`` wrote, or a list. A data
    set's name takes precedence over a folder of that name; write ``./NAME`` for
    the folder. ``PACKAGE:NAME`` chooses among packages.

    Raises:
        RequestError: ``text`` is neither a known name nor an existing path.
    """
    installed = entries("datasets")
    names = {entry.name for entry in installed}
    qualified = {f"{entry.package}:{entry.name}" for entry in installed}
    pieces = text.split(":")
    for length, known in ((1, names), (2, qualified)):
        if (name := ":".join(pieces[:length])) in known:
            path = ":".join(pieces[length:])
            return name, os.path.expanduser(path) if path else None
    path = os.path.expanduser(text)
    if os.path.exists(path):
        return _kind(path), path
    if os.sep in pieces[0]:
        raise RequestError(f"There is no folder {text}.")
    raise RequestError(unknown(f"folder {text} and no data set", pieces[0], names))


def _refuse_unwritable(text: str) -> None:
    """Refuse a path that cannot be written to a run's recipe, which is UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(text).decode("utf-8", "backslashreplace")
        raise RequestError(
            f"The path {shown} is not UTF-8, so the run's recipe cannot record it. Rename the "
            "folder or use a link to it. (The names of files in it may be anything.)"
        ) from None


def _kind(path: str | os.PathLike[str]) -> str:
    place = Path(path)
    if place.suffix.lower() in LISTS and place.is_file():
        return "list"
    return "pack" if (place / "pack.json").is_file() else "folder"


def open_source(data: Any, download: bool = False) -> Source:
    """Return the source for a text, a path or a Python object.

    Args:
        data: ``SOURCE[:PATH]``, a path, a source, or an object that
            :func:`coview.data.sources.arrays.from_object` takes.
        download: download the data if they are missing.
    """
    if isinstance(data, (str, os.PathLike)):
        _refuse_unwritable(os.fspath(data))
        name, path = parse_source(data) if isinstance(data, str) else (_kind(data), os.fspath(data))
        return cast(Source, find("datasets", name).load()(path, download=download))
    if hasattr(data, "load") and hasattr(data, "native_size"):
        return cast(Source, data)
    return Objects(data)
