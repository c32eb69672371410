"""Atomic files: after any interruption a file has its old content or its new one."""

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
    """Yield a temporary path to write to; on success it replaces ``path``, flushed to disk.

    Args:
        path: the file.
        keep: where to keep the file that is replaced; at every moment one of the
            two exists.

    Raises:
        CoviewError: the disk is full or not writable; ``path`` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        usual = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != usual:
            temporary.chmod(usual)  # some libraries let nobody else read what they write
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
    """Return the operating system's error that a library's error hides, if there is one."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        # safetensors and other libraries written in Rust.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(number[1]), os.strerror(int(number[1])))
        error = error.__cause__ or error.__context__
    return None


def unwritable(path: Path, error: OSError) -> CoviewError:
    """Return the error for a file that could not be written."""
    return CoviewError(f"{path} could not be written: {error.strerror or error}.")


def _keep(path: Path, keep: Path) -> None:
    """Give a file a second name, replacing any file of that name."""
    second = keep.with_name(f".{keep.name}.{os.getpid()}.tmp")
    try:
        os.link(path, second)
    except OSError:
        # A file system without hard links: for a moment only the kept name exists.
        os.replace(path, keep)
        return
    try:
        os.replace(second, keep)
    finally:
        with suppress(OSError):
            second.unlink()


def sweep(folder: Path) -> None:
    """Delete what killed writers left half written; no writer may be at work."""
    for left in folder.glob(".*.tmp"):
        with suppress(OSError):
            left.unlink()


def _flush_directory(folder: Path) -> None:
    """Flush a directory, if possible, so that renames in it survive a power cut."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # some file systems, of networks for example, cannot flush a directory
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
        CoviewError: the disk is full or not writable.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise unwritable(path, error) from error
