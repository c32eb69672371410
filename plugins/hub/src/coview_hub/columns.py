"""The columns of a data set: which holds the image, which the label, and what the others hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coview.data.sources.listed import COLUMNS
from coview.data.sources.targets import as_field
from coview.errors import RequestError, unknown

if TYPE_CHECKING:
    from datasets import Dataset

NOTHING = "none"
"""Written for ``label=``: there is none."""


@attrs.frozen
class Columns:
    """The columns of a data set by their use.

    Attributes:
        image: holds the images.
        label: holds the labels; None: there are none.
        fields: the others.
        classes: names of the classes by number, if the data set knows them; else None.
        note: which columns are used, in a sentence.
    """

    image: str
    label: str | None
    fields: tuple[str, ...]
    classes: tuple[str, ...] | None
    note: str

    @classmethod
    def of(cls, features: Mapping[str, Any], asked: Mapping[str, str], name: str) -> Columns:
        """Choose columns.

        Args:
            features: the type of each column.
            asked: columns that the user named, under ``image`` and ``label``.
            name: the data set's name, for messages.

        Raises:
            RequestError: no column holds images, or there is none of a name that was given.
        """
        for kind in ("image", "label"):
            given = asked.get(kind)
            if given is not None and given not in features and (kind, given) != ("label", NOTHING):
                raise RequestError(
                    f"hf:{name}: {unknown('column', given, features)} Its columns: "
                    f"{', '.join(features)}."
                )
        image = asked.get("image") or _image(features)
        if image is None:
            raise RequestError(
                f"hf:{name} has no column of images (its columns: {', '.join(features)}). If one "
                f"holds encoded images or paths, name it: hf:{name},image=COLUMN"
            )
        label = asked.get("label") or _label(features, image)
        label = None if label == NOTHING else label
        others = tuple(each for each in features if each not in (image, label))
        return cls(image, label, others, _classes(features, label), _note(image, label, others))

    def alone(self) -> Columns:
        """Return the column of images alone."""
        return Columns(self.image, None, (), None, _note(self.image, None, ()))


def _usual(kind: str, names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in COLUMNS[kind] if name in lower), None)


def _image(features: Mapping[str, Any]) -> str | None:
    """Return the column that holds images: of that type, then of a usual name and bytes."""
    from datasets import Image, Value

    typed = [name for name, feature in features.items() if isinstance(feature, Image)]
    if typed:
        return _usual("image", typed) or typed[0]
    encoded = [
        name
        for name, feature in features.items()
        if (isinstance(feature, Value) and feature.dtype in ("binary", "large_binary"))
        or (isinstance(feature, dict) and "bytes" in feature)
    ]
    return _usual("image", encoded)


def _label(features: Mapping[str, Any], image: str) -> str | None:
    """Return the column that holds labels: of a usual name, then the first of classes."""
    from datasets import ClassLabel

    others = [name for name in features if name != image]
    usual = _usual("label", others)
    classes = (name for name in others if isinstance(_each(features[name]), ClassLabel))
    return usual or next(classes, None)


def _each(feature: Any) -> Any:
    """Return the type of a list's values; of anything else, the type itself."""
    return getattr(feature, "feature", feature)


def _classes(features: Mapping[str, Any], label: str | None) -> tuple[str, ...] | None:
    names = None if label is None else getattr(_each(features[label]), "names", None)
    return None if names is None else tuple(names)


def _note(image: str, label: str | None, others: Sequence[str]) -> str:
    labels = f"labels in {label!r}" if label else "there are no labels"
    more = f"; fields: {', '.join(others)}" if others else ""
    return f"Images are in the column {image!r}, {labels}{more}."


@attrs.frozen(eq=False)
class Cells(Sequence[Any]):
    """The values of a column, read from the disk when they are asked for.

    Attributes:
        table: the data set.
        column: the name of the column.
        rows: (N,) the rows that are meant, in order.
    """

    table: Dataset
    column: str
    rows: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        return self.table[int(self.rows[index])][self.column]

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))


def field(table: Dataset, column: str, rows: np.ndarray[Any, Any]) -> Any:
    """Return a column as a field of the images: numbers as a tensor (N, ...), others unread."""
    narrow = table.select_columns([column])
    if _numeric(table.features[column]):
        values = as_field(narrow.with_format("numpy")[:][column])
        return values[rows.tolist()] if hasattr(values, "shape") else _at(values, rows)
    return Cells(narrow, column, rows)


def _at(values: Sequence[Any], rows: np.ndarray[Any, Any]) -> list[Any]:
    return [values[row] for row in rows.tolist()]


def _numeric(feature: Any) -> bool:
    from datasets import ClassLabel, Value

    while hasattr(feature, "feature"):
        feature = feature.feature
    kinds = ("int", "uint", "float", "bool")
    return isinstance(feature, ClassLabel) or (
        isinstance(feature, Value) and feature.dtype.startswith(kinds)
    )
