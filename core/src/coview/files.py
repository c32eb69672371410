"""Files that are either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coview.errors import CoviewError


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Give a temporary path to write; on success it replaces ``path``, flushed to the disk.

    Args:
        path: the file.
        keep: where the file that is replaced is kept; there is no moment at
            which neither is there.

    Raises:
        CoviewError: the disk is full or may not be written; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        os.replace(temporary, path)
        _flush_directory(path.parent)
    except Exception as error:
        reason = _disk_error(error)
        if reason is None:
            raise
        raise unwritable(path, reason) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _disk_error(error: BaseException | None) -> OSError | None:
    """Return the operating system's error behind another one, which libraries hide."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        # safetensors and others written in Rust.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(number[1]), os.strerror(int(number[1])))
        error = error.__cause__ or error.__context__
    return None


def unwritable(path: Path, error: OSError) -> CoviewError:
    """Return the error of a file that could not be written."""
    return CoviewError(f"{path} could not be written: {error.strerror or error}.")


def _keep(path: Path, keep: Path) -> None:
    """Give a file a second name, in place of what had that name."""
    second = keep.with_name(f".{keep.name}.{os.getpid()}.tmp")
    try:
        os.link(path, second)
    except OSError:
        # A file system without hard links: for a moment there is only the kept one.
        os.replace(path, keep)
        return
    try:
        os.replace(second, keep)
    finally:
        with suppress(OSError):
            second.unlink()


def sweep(folder: Path) -> None:
    """Delete what writers that were killed left half written; none may be at work."""
    for left in folder.glob(".*.tmp"):
        with suppress(OSError):
            left.unlink()


def _flush_directory(folder: Path) -> None:
    """Make a renaming last through a power cut, where directories can be flushed."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # else a file system (a network's) that has no such thing
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        CoviewError: as :func:`replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        CoviewError: as :func:`replacing`.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file.

    Raises:
        CoviewError: the disk is full or may not be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise unwritable(path, error) from error
