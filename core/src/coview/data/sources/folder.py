"""A folder of images, with or without class sub-folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path, PurePath
from typing import ClassVar

import attrs
import torch
from PIL import Image

from coview.data import bands
from coview.data.assemble import assemble, common_size, delivered_size
from coview.data.bad_images import BadImageError
from coview.data.bands import ARRAYS, STACKS
from coview.data.base import IMAGENET_MEAN, IMAGENET_STD, DataSettings, ImageData, Split
from coview.data.decode import FORMATS, Files, named
from coview.data.splits import digest, evenly_spaced
from coview.errors import RequestError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp"}) | ARRAYS | STACKS


@attrs.frozen
class Listing:
    """The images below a folder, in a fixed order.

    Attributes:
        names: POSIX paths relative to the data set's root.
        bytes: each file's size.
        classes: each image's class, named after its sub-folder; None if the
            folder has no sub-folders with images.
        loose: number of images beside the class folders, which are left out.
        lost: number of links that lead nowhere or in a circle, and of files that
            disappeared meanwhile.
    """

    names: tuple[str, ...]
    bytes: tuple[int, ...]
    classes: tuple[str, ...] | None
    loose: int = 0
    lost: int = 0


def list_images(folder: Path, root: Path, suffixes: Set[str] = SUFFIXES) -> Listing:
    """List the images of ``folder``, at any depth, with names relative to ``root``.

    Args:
        folder: the folder to list.
        root: the data set's folder.
        suffixes: endings of the images' names, in lower case.

    Raises:
        RequestError: there are no images, or a folder cannot be read.
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
            # Skip folders and pipes: reading a pipe would wait forever.
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
    """Yield files named like images, sorted; links to a folder above are not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    with os.scandir(folder) as entries:
        # Hidden files are not data: .DS_Store, .cache, macOS's ._photo.jpg.
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


LOOKED_AT = 32
"""Number of images whose size is read to tell whether all have the same size."""


class Folder:
    """JPEG, PNG, GIF, WebP, BMP and TIFF images and NumPy arrays below a folder.

    Sub-folders ``train`` and ``test`` (or ``val``) are the splits; without
    them a share is held out. The folders one level below are the classes.
    """

    kind: ClassVar[str] = "folder"
    held: ClassVar[tuple[str, ...]] = ("test", "val")
    suffixes: ClassVar[Set[str]] = SUFFIXES

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """List the images below ``path``; ``download`` has no effect."""
        if path is None:
            raise RequestError(f"The data set {self.kind} needs a path: write {self.kind}:PATH.")
        self.root = Path(path)
        if not self.root.exists():
            raise RequestError(f"There is no folder {path}.")
        if not self.root.is_dir():
            raise RequestError(f"{path} is a file; the data set {self.kind} needs a folder.")
        self.name = f"{self.kind}:{path}"
        self.train, self.test = self._list()

    def _list(self) -> tuple[Listing, Listing | None]:
        train = self.root / "train"
        held = [self.root / name for name in self.held if (self.root / name).is_dir()]
        others = [p for p in self.root.iterdir() if p.is_dir() and p != train and p.name[0] != "."]
        # A folder "train" beside others may be a class (of vehicles, for example).
        if not train.is_dir() or (others and not held):
            return list_images(self.root, self.root, self.suffixes), None
        tests = [list_images(folder, self.root, self.suffixes) for folder in held]
        # ImageNet's test images have no labels, so val is used for measuring.
        labelled = (listing for listing in tests if listing.classes is not None)
        listing = list_images(train, self.root, self.suffixes)
        return listing, next(labelled, tests[0] if tests else None)

    def native_size(self) -> int:
        """Return the short side if a sample of images shares one of up to 64, else 256."""
        return common_size(min(height, width) for height, width, _ in self._sample())

    def count(self) -> int:
        """Return the number of files to train on, some of which may be held out."""
        return len(self.train.names)

    def _sample(self) -> list[tuple[int, int, int | None]]:
        """Return height, width and, for an array or stack, channels of a sample of images.

        Raises:
            BadImageError: no image of the sample can be read.
        """
        names, seen = self.train.names, []
        problems: list[BadImageError] = []
        for row in evenly_spaced(len(names), LOOKED_AT):
            try:
                seen.append(_header(str(self.root / names[row])))
            except Exception as error:  # see decode
                problems.append(named(str(self.root / names[row]), error))
        if not seen:
            raise problems[0]
        return seen

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; in colour unless ``settings`` ask for grey.

        If there are arrays or stacks, the first in the sample determines the number
        of channels.
        """
        counts = (count for _, _, count in self._sample())
        stored = next((count for count in counts if count is not None), None)
        native, channels = self.native_size(), settings.channels or stored or 3
        listings = [self.train] if self.test is None else [self.train, self.test]
        # The union, so that a class in only one split does not shift the others' numbers.
        classes = tuple(sorted({name for listing in listings for name in listing.classes or ()}))
        size = delivered_size(settings, native)
        splits = [
            self._split(listing, classes, Files((), size, channels, settings.decoder))
            for listing in listings
        ]
        return assemble(
            self.name,
            splits[0],
            splits[1] if len(splits) > 1 else None,
            settings,
            native=native,
            channels=channels,
            classes=classes if len(classes) > 1 else (),
            fingerprint=digest(*(str(text) for s in listings for text in (*s.names, *s.bytes))),
            # Arrays need not be photographs.
            published=None if stored else (IMAGENET_MEAN, IMAGENET_STD),
            notes=tuple(_notes(listings, classes)),
            workers=workers,
        )

    def _split(self, listing: Listing, classes: Sequence[str], empty: Files) -> Split:
        numbers = {name: number for number, name in enumerate(classes)}
        labels = None
        # Unlabelled images are often stored in a single class folder.
        if listing.classes is not None and len(classes) > 1:
            labels = torch.tensor([numbers[name] for name in listing.classes])
        paths = tuple(str(self.root / name) for name in listing.names)
        return Split(attrs.evolve(empty, paths=paths), labels, listing.names)


def _header(path: str) -> tuple[int, int, int | None]:
    if (shape := bands.shape_of(path)) is not None:
        return shape[1], shape[2], shape[0]
    with Image.open(path, formats=FORMATS) as image:
        return image.height, image.width, None


def _notes(listings: Sequence[Listing], classes: Sequence[str]) -> list[str]:
    notes = []
    if loose := sum(listing.loose for listing in listings):
        notes.append(f"{loose} images beside the class folders are left out.")
    if lost := sum(listing.lost for listing in listings):
        notes.append(f"{lost} links that lead to no file are left out.")
    if len(classes) == 1:
        notes.append("There is only one class folder, so the images count as unlabelled.")
    if untrained := sorted(set(classes) - set(listings[0].classes or classes)):
        notes.append(f"Classes without training images: {', '.join(untrained)}.")
    return notes
