"""From what a user wrote after ``--data``, or handed over in Python, to a source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from coview.data.base import Source
from coview.data.sources.arrays import Objects
from coview.errors import RequestError, unknown
from coview.registry import entries, find


def parse_source(text: str) -> tuple[str, str | None]:
    """Split ``SOURCE[:PATH]`` into a data set's name and a path.

    A path alone is a folder, of images or one that ``coview pack`` wrote. A
    name comes before a folder of that name, which can be written ``./NAME``;
    ``PACKAGE:NAME`` chooses among packages.

    Raises:
        RequestError: it is neither a name nor a path that exists.
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
    raise RequestError(f"{unknown('data set', pieces[0], names)} There is no such folder either.")


def _refuse_unwritable(text: str) -> None:
    """Refuse a path that a run's recipe, which is UTF-8, could not say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(text).decode("utf-8", "backslashreplace")
        raise RequestError(
            f"The path {shown} is not UTF-8, so that no recipe could name it: give the folder "
            "another name, or a link to it. (Names within it may be anything.)"
        ) from None


def _kind(path: str | os.PathLike[str]) -> str:
    return "pack" if (Path(path) / "pack.json").is_file() else "folder"


def open_source(data: Any, download: bool = False) -> Source:
    """Return the source that a text, a path or a Python object means.

    Args:
        data: ``SOURCE[:PATH]``, a path, a source, or an object that
            :func:`coview.data.sources.arrays.from_object` takes.
        download: fetch the data if they are not there.
    """
    if isinstance(data, (str, os.PathLike)):
        _refuse_unwritable(os.fspath(data))
        name, path = parse_source(data) if isinstance(data, str) else (_kind(data), os.fspath(data))
        return cast(Source, find("datasets", name).load()(path, download=download))
    if hasattr(data, "load") and hasattr(data, "native_size"):
        return cast(Source, data)
    return Objects(data)
