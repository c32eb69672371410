"""Which images are in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from pathlib import Path, PurePath

import attrs

from coview.data.bands import ARRAYS, STACKS
from coview.errors import RequestError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"}) | ARRAYS | STACKS


@attrs.frozen
class Listing:
    """The images below a folder, in a fixed order.

    Attributes:
        names: POSIX paths relative to the data set's root.
        bytes: each file's size.
        classes: each image's class, the sub-folder it is below; None if the
            folder has no sub-folders with images.
        loose: images beside the class folders, which are left out.
    """

    names: tuple[str, ...]
    bytes: tuple[int, ...]
    classes: tuple[str, ...] | None
    loose: int = 0


def list_images(folder: Path, root: Path, suffixes: Set[str] = SUFFIXES) -> Listing:
    """List the images of ``folder``, at any depth, with names relative to ``root``.

    Args:
        folder: where they are.
        root: the data set's.
        suffixes: what their names end in, in lower case.

    Raises:
        RequestError: there are none, or a folder cannot be read.
    """
    try:
        found = [
            (PurePath(entry.path), entry.stat().st_size)
            for entry in _walk(str(folder), (), suffixes)
        ]
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
    )


def _walk(folder: str, above: tuple[str, ...], suffixes: Set[str]) -> Iterator[os.DirEntry[str]]:
    """Yield image files in sorted order; a link to a folder above is not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    with os.scandir(folder) as entries:
        # Names with a dot first are no data: .DS_Store, .cache, ._photo.jpg of macOS.
        visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in visible:
        if entry.is_dir():
            yield from _walk(entry.path, (*above, here), suffixes)
        elif os.path.splitext(entry.name)[1].lower() in suffixes and entry.is_file():
            yield entry
