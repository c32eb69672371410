"""The data set ``hf``: what ``datasets`` reads, from the Hub, its cache or a local folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from torch import Tensor

from coview.data.assemble import assemble, delivered_size
from coview.data.base import DataSettings, ImageData, Split
from coview.data.sources.listing import counted
from coview.data.sources.sample import Sample
from coview.data.sources.targets import as_classes, counts, numbered, read_targets
from coview.data.splits import digest
from coview.errors import RequestError
from coview_hub.columns import Columns, field
from coview_hub.opening import FORM, Asked, opened
from coview_hub.rows import Rows
from coview_hub.stream import Stream


class Hub:
    """A data set of the Hugging Face Hub, or what ``datasets`` reads from a local path.

    The split called train is trained on and the one called test (or val) is measured with;
    without one, a share is held out.
    """

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Open the data set; ``download`` lets what is missing be fetched."""
        if path is None:
            raise RequestError(f"The data set hf needs a name: write {FORM}.")
        self.name = f"hf:{path}"
        self.asked = Asked.read(path)
        self.opened = opened(self.asked, download)
        tables = [self.opened.train, *([self.opened.test] if self.opened.test else [])]
        if not len(tables[0]):
            raise RequestError(f"{self.name} holds no images.")
        self.columns = Columns.of(tables[0].features, self.asked.options, self.asked.name)
        self.tables = tables
        if isinstance(self.opened.train, Stream):
            self.columns = self.columns.alone()
            images = Rows.streamed(self.opened.train, self.columns.image, self.opened.names[0])
            self.images = [images]
            return
        root = str(Path(self.asked.name).absolute()) if self.asked.local else ""
        self.images = [
            Rows.of(table, self.columns.image, name, root)
            for table, name in zip(tables, self.opened.names, strict=True)
        ]

    def native_size(self) -> int:
        """Return the short side if a sample of images shares one of up to 64, else 256."""
        return self._sample.native_size()

    def count(self) -> int:
        """Return the number of images to train on, some of which may be held out."""
        return len(self.images[0])

    @cached_property
    def _sample(self) -> Sample:
        first = self.images[0]
        # What is looked at of a stream is its beginning.
        count = min(len(first), first.shuffled_within or len(first))
        return Sample.of(count, first.file, first.problem)

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; in colour unless ``settings`` ask for grey."""
        if self.images[0].shuffled_within:
            settings = attrs.evolve(settings, cache="off", holdout=0.0)
        native, channels = self.native_size(), self._sample.channels(settings)
        reading, said = self._sample.reading(settings)
        size = delivered_size(settings, native)
        parts = self._parts()
        made = [
            attrs.evolve(images, size=size, channels=channels, reading=reading)
            for images in self.images
        ]
        bare = None
        if len(parts.bare):
            bare = self._split(made[0], 0, parts.bare, None)
        return assemble(
            self.name,
            self._split(made[0], 0, parts.rows[0], parts.truth[0]),
            self._split(made[1], 1, parts.rows[1], parts.truth[1]) if len(parts.rows) > 1 else None,
            settings,
            native=native,
            channels=channels,
            classes=parts.classes,
            fingerprint=digest(*self._identity(parts)),
            published=self._sample.published,
            notes=(*self._notes(parts), *self._sample.notes(channels), *said),
            workers=workers,
            unlabelled=bare,
            reading=reading,
            summary={
                "found": sum(map(len, self.tables)),
                "left_out": dict(parts.left),
                "labels": counts(parts.truth, parts.classes),
                **self._sample.facts(),
            },
        )

    def _parts(self) -> Parts:
        if self.columns.label is None:
            return Parts.of(
                [len(table) for table in self.tables], [[None]] * len(self.tables), None
            )
        labels = [_labels(table, self.columns) for table in self.tables]
        return Parts.of([len(table) for table in self.tables], labels, self.columns.classes)

    def _split(
        self, images: Rows, number: int, rows: np.ndarray[Any, Any], truth: Tensor | None
    ) -> Split:
        own = images.at(rows)
        fields = {n: field(self.tables[number], n, own.rows) for n in self.columns.fields}
        if self.columns.label is not None and truth is None:
            fields["labels"] = field(self.tables[number], self.columns.label, own.rows)
        names = None
        if own.shuffled_within is None:
            names = tuple(own.name(row) for row in range(len(own)))
        if truth is not None and truth.ndim == 2:
            return Split(own, names=names, fields=fields, multi_hot=truth)
        return Split(own, truth, names, fields=fields)

    def _identity(self, parts: Parts) -> Iterator[Any]:
        for images in self.images:
            yield from images.identity()
        yield from parts.truth

    def _notes(self, parts: Parts) -> Iterator[str]:
        used = " and ".join(self.opened.names)
        left = f" (not used: {', '.join(self.opened.others)})" if self.opened.others else ""
        yield f"Splits: {used}{left}. {self.columns.note}"
        yield from parts.notes
        if len(parts.bare):
            yield (
                f"{len(parts.bare)} of {len(self.tables[0])} images have no label: they are "
                "trained on, and not measured with."
            )
        if parts.left:
            yield f"Images that are not used: {counted(parts.left)}."


@attrs.frozen(eq=False)
class Parts:
    """The rows of the splits by what they are used for.

    Attributes:
        rows: of each split, those with a label if there are labels, else all.
        truth: of each split (n,) int64 or (n, C) bool; None: nothing can be measured.
        bare: rows of the first split that have no label, if others do.
        classes: names of the classes.
        left: number of images that are not used, by reason.
        notes: sentences on the labels.
    """

    rows: list[np.ndarray[Any, Any]]
    truth: list[Tensor | None]
    bare: np.ndarray[Any, Any]
    classes: tuple[str, ...] = ()
    left: Counter[str] = attrs.field(factory=Counter)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, counts: Sequence[int], labels: Sequence[Sequence[Any]], names: Sequence[str] | None
    ) -> Parts:
        """Share out rows.

        Args:
            counts: number of rows of each split.
            labels: the labels of each split; None where there is none.
            names: names of the classes by number, if they are known.
        """
        whole = [np.arange(count) for count in counts]
        known = [np.array([label is not None for label in each], bool) for each in labels]
        if not known[0].any():
            return cls(whole, [None] * len(whole), whole[0][:0])
        values = [label for each in labels for label in each if label is not None]
        if all(isinstance(value, str) for value in values):
            values = list(as_classes(values))
        targets, classes = read_targets(values, names), tuple[str, ...]()
        truth = targets.multi_hot
        if targets.labels is not None:
            truth, classes = numbered(targets.labels, len(values), names)
            if len(classes) < 2:
                note = ("There is only one class, so the images count as unlabelled.",)
                return cls(whole, [None] * len(whole), whole[0][:0], notes=note)
        elif truth is not None:
            classes = targets.classes
        if truth is None:
            return cls(whole, [None] * len(whole), whole[0][:0], notes=targets.notes)
        rows = [np.flatnonzero(each) for each in known]
        cut = list(truth.split([len(each) for each in rows]))
        without = sum(int((~each).sum()) for each in known[1:])
        left = Counter({"of the test split, without a label": without})
        if len(rows) > 1 and not len(rows[1]):
            rows, cut = rows[:1], cut[:1]
        return cls(rows, cut, np.flatnonzero(~known[0]), classes, +left, targets.notes)


def _labels(table: Any, columns: Columns) -> list[Any]:
    """Return a split's labels; None where there is none."""
    if columns.label is None or columns.label not in table.column_names:
        return [None] * len(table)
    values = table.select_columns([columns.label])[:][columns.label]
    if columns.classes is None:
        return [None if value == "" else value for value in values]
    # The Hub's test sets have -1 where a label is kept secret.
    return [None if value == -1 else value for value in values]
