"""Which images are in a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path, PurePath

import attrs

from coview.data.bands import ARRAYS, STACKS
from coview.errors import RequestError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp"}) | ARRAYS | STACKS


@attrs.frozen
class Listing:
    """The images below a folder, in a fixed order.

    Attributes:
        names: POSIX paths relative to the data set's root.
        bytes: each file's size.
        classes: each image's class, the sub-folder it is below; None if the
            folder has no sub-folders with images.
        loose: images beside the class folders, which are left out.
        lost: links that lead nowhere or in a circle, and files that went away
            meanwhile.
    """

    names: tuple[str, ...]
    bytes: tuple[int, ...]
    classes: tuple[str, ...] | None
    loose: int = 0
    lost: int = 0


def list_images(folder: Path, root: Path, suffixes: Set[str] = SUFFIXES) -> Listing:
    """List the images of ``folder``, at any depth, with names relative to ``root``.

    Args:
        folder: where they are.
        root: the data set's.
        suffixes: what their names end in, in lower case.

    Raises:
        RequestError: there are none, or a folder cannot be read.
    """
    found: list[tuple[PurePath, int]] = []
    lost = 0
    try:
        for entry in _walk(str(folder), (), suffixes):
            try:
                status = entry.stat()
            except OSError:
                lost += 1
                continue
            # Neither a folder nor a pipe, which would be waited for without end.
            if stat.S_ISREG(status.st_mode):
                found.append((PurePath(entry.path), status.st_size))
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in suffixes))
        raise RequestError(f"The folder {folder} holds no images ({kinds}).")
    within = [(path, size) for path, size in found if path.parent != folder]
    kept = within or found
    return Listing(
        names=tuple(path.relative_to(root).as_posix() for path, _ in kept),
        bytes=tuple(size for _, size in kept),
        classes=tuple(path.relative_to(folder).parts[0] for path, _ in kept) if within else None,
        loose=len(found) - len(kept),
        lost=lost,
    )


def _walk(folder: str, above: tuple[str, ...], suffixes: Set[str]) -> Iterator[os.DirEntry[str]]:
    """Yield what is named as images, sorted; a link to a folder above is not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    with os.scandir(folder) as entries:
        # Names with a dot first are no data: .DS_Store, .cache, ._photo.jpg of macOS.
        visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in visible:
        if _is_folder(entry):
            yield from _walk(entry.path, (*above, here), suffixes)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False
