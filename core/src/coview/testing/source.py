"""A data set under test: loaded as a run loads it, and once more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import attrs
from torch import Tensor

from coview.components import DataSource, declared
from coview.data.base import DataSettings, ImageData, Source, Split
from coview.data.sources import open_source, parse_source
from coview.data.splits import evenly_spaced
from coview.errors import RequestError
from coview.registry import find

SAMPLE = 64
"""Images of each split that are read, spread over all of it."""


@attrs.frozen(eq=False)
class SourceSubject:
    """A data set under test.

    Attributes:
        text: ``SOURCE[:PATH]``, as after ``--data``.
        failed: promises that were broken, as of a method's subject.
    """

    text: str
    failed: dict[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The data set as the user wrote it."""
        return self.text

    @property
    def package(self) -> str:
        """The distribution that registers the data set."""
        return find("datasets", parse_source(self.text)[0]).package

    @cached_property
    def source(self) -> Source:
        """The source, before anything is loaded."""
        return open_source(self.text)

    @cached_property
    def loaded(self) -> ImageData:
        """The data."""
        return self.source.load(DataSettings())

    @cached_property
    def again(self) -> ImageData:
        """The data, loaded by another source of the same text."""
        return open_source(self.text).load(DataSettings())

    def declared(self, name: str) -> Any:
        """Return what the source declares."""
        return declared(self.source, DataSource, name)


def is_source(text: str) -> bool:
    """Return whether a text names a data set; a folder or a file alone is written ``./NAME``."""
    try:
        name, path = parse_source(text)
    except RequestError:
        return False
    return os.sep in text or text in (name, f"{name}:{path}")


def splits(data: ImageData) -> Iterator[tuple[str, Split]]:
    """Yield each split once, with its name."""
    yield "train", data.train
    if data.test is not None:
        yield "test", data.test
    if data.reference is not data.train:
        yield "reference", data.reference


def sampled(split: Split) -> list[int]:
    """Return the indices of the images that are read: the first, the last, and some between."""
    return evenly_spaced(len(split), SAMPLE)


def read(split: Split, index: int) -> Tensor:
    """Return one image of a split."""
    image: Tensor = split.images[index]
    return image
