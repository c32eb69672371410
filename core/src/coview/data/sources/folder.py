"""A folder of images, with or without class sub-folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import attrs
import torch

from coview.data.assemble import assemble, delivered_size
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import Files
from coview.data.sources.listing import HELD, SUFFIXES, Layout, Listing, counted, understood
from coview.data.sources.sample import Sample
from coview.data.splits import digest
from coview.errors import RequestError

__all__ = ["SUFFIXES", "Folder", "Listing"]


class Folder:
    """Images of all formats that Pillow decodes, and NumPy arrays, below a folder.

    Sub-folders ``train`` and ``test`` (or ``val``) are the splits; without
    them a share is held out. The folders one level below are the classes.
    """

    kind: ClassVar[str] = "folder"
    held: ClassVar[tuple[str, ...]] = HELD
    suffixes: ClassVar[Set[str] | None] = None
    files: ClassVar[type[Files]] = Files

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
        self.layout: Layout = understood(self.root, self.held, self.suffixes)
        self.train, self.test = self.layout.train, self.layout.test

    def native_size(self) -> int:
        """Return the short side if a sample of images shares one of up to 64, else 256."""
        return self._sample.native_size()

    def count(self) -> int:
        """Return the number of files to train on, some of which may be held out."""
        return len(self.train.names) + self.train.loose

    @cached_property
    def _sample(self) -> Sample:
        beside = self.train.beside
        names = (*self.train.names, *(beside.names if beside else ()))
        return Sample.of_files([str(self.root / name) for name in names])

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; in colour unless ``settings`` ask for grey.

        If there are arrays or stacks, the first in the sample determines the number
        of channels.
        """
        native, channels = self.native_size(), self._sample.channels(settings)
        listings = [self.train] if self.test is None else [self.train, self.test]
        # The union, so that a class in only one split does not shift the others' numbers.
        classes = tuple(sorted({name for listing in listings for name in listing.classes or ()}))
        reading, said = self._sample.reading(settings)
        size = delivered_size(settings, native)
        empty = self.files((), size, channels, settings.decoder, reading)
        splits = [self._split(listing, classes, empty) for listing in listings]
        beside = self.train.beside
        extra = None if beside is None else self._split(beside, (), empty)
        return assemble(
            self.name,
            splits[0],
            splits[1] if len(splits) > 1 else None,
            settings,
            native=native,
            channels=channels,
            classes=classes if len(classes) > 1 else (),
            fingerprint=digest(
                *_identity([*listings, *([beside] if beside else [])]), *self.layout.marks
            ),
            published=self._sample.published,
            notes=(*self._notes(listings, classes), *self._sample.notes(channels), *said),
            workers=workers,
            unlabelled=extra,
            reading=reading,
            summary=self._summary(listings, classes),
        )

    def _split(self, listing: Listing, classes: Sequence[str], empty: Files) -> Split:
        numbers = {name: number for number, name in enumerate(classes)}
        labels = None
        # Unlabelled images are often stored in a single class folder.
        if listing.classes is not None and len(classes) > 1:
            labels = torch.tensor([numbers[name] for name in listing.classes])
        paths = tuple(str(self.root / name) for name in listing.names)
        return Split(attrs.evolve(empty, paths=paths), labels, listing.names)

    def _notes(self, listings: Sequence[Listing], classes: Sequence[str]) -> list[str]:
        notes = [*self.layout.notes]
        loose = listings[0].loose
        if loose and len(classes) > 1:
            notes.append(
                f"{loose} images beside the class folders have no labels: they are "
                "trained on, and not measured with."
            )
        if lost := sum(listing.lost for listing in listings):
            notes.append(f"{lost} links that lead to no file are left out.")
        if others := _others(listings):
            notes.append(f"Files that are left out, as they are no images: {counted(others)}.")
        if len(classes) == 1:
            notes.append("There is only one class folder, so the images count as unlabelled.")
        if empty := sorted({name for listing in listings for name in listing.empty} - {*classes}):
            notes.append(f"Folders without images: {', '.join(empty)}.")
        if untrained := sorted(set(classes) - set(listings[0].classes or classes)):
            notes.append(f"Classes without training images: {', '.join(untrained)}.")
        return notes

    def _summary(self, listings: Sequence[Listing], classes: Sequence[str]) -> dict[str, Any]:
        found = sum(len(listing.names) for listing in listings) + listings[0].loose
        left = dict(self.layout.left_out)
        return {
            "found": found + sum(left.values()),
            "left_out": {**left, **_others(listings)},
            "labels": dict(Counter(name for s in listings for name in s.classes or ()))
            if len(classes) > 1
            else {},
            **self._sample.facts(),
        }


def _identity(listings: Iterable[Listing]) -> Iterator[str]:
    for listing in listings:
        yield from listing.names
        yield from map(str, listing.bytes)


def _others(listings: Iterable[Listing]) -> dict[str, int]:
    return dict(sum((Counter(listing.others) for listing in listings), Counter()))
