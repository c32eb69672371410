"""What Python data say of each image: one class, or other targets, which become fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from coview.data.splits import class_sizes
from coview.errors import RequestError


def numbered(
    labels: Iterable[Any], count: int, names: Any = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Number the distinct labels from 0, in sorted order.

    Args:
        labels: whole numbers from 0 or texts, one per image.
        count: number of images.
        names: names of the classes, by label, if known.

    Returns:
        (count,) int64, and the name of each class.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,):
        raise RequestError(
            f"There must be one label per image, so shape ({count},), not {values.shape}."
        )
    if values.dtype.kind not in "iubU" or (values.dtype.kind == "i" and (values < 0).any()):
        raise RequestError(
            "Labels must be whole numbers from 0, or texts. Without labels, pass the images alone."
        )
    found, numbers = np.unique(values, return_inverse=True)
    named = names is not None and found.dtype.kind in "iu" and found[-1] < len(names)
    return torch.from_numpy(numbers).long(), tuple(str(names[v] if named else v) for v in found)


def counts(truth: Iterable[Tensor | None], classes: Sequence[str]) -> dict[str, int]:
    """Return the number of images of each class.

    Args:
        truth: of each part (n,) int64 or (n, C) bool; None where nothing is known.
        classes: names of the C classes.
    """
    known = [part for part in truth if part is not None]
    each = [class_sizes(part, len(classes)) for part in known]
    total = torch.stack(each).sum(dim=0).tolist() if each else []
    return dict(zip(classes, total, strict=True)) if total else {}


def as_classes(texts: Sequence[str]) -> list[int] | list[str]:
    """Return labels as numbers if all are written as numbers are: ``007`` is no 7."""
    whole = all(text.isdecimal() and str(int(text)) == text for text in texts)
    return [int(text) for text in texts] if whole else list(texts)


def plain_label(label: Any) -> Any:
    """Return a label of one element as Python's own number or text; others as they are."""
    if isinstance(label, Tensor):
        return label.item() if label.numel() == 1 else label
    one = isinstance(label, (np.ndarray, np.generic)) and label.size == 1
    return label.item() if one else label


@attrs.frozen(eq=False)
class Targets:
    """What is known of each image.

    Attributes:
        labels: one class each, as :func:`numbered` takes them; None: there are none.
        multi_hot: (N, C) bool, which classes each image has; None: they have not several.
        classes: names of these C classes.
        fields: the targets as they came, ``labels`` (N, ...), if they are not one class each.
        notes: a sentence about that.
    """

    labels: Any = None
    multi_hot: Tensor | None = None
    classes: tuple[str, ...] = ()
    fields: Mapping[str, Tensor | Sequence[Any]] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()


def read_targets(labels: Any, names: Any = None) -> Targets:
    """Tell apart one class per image, several classes per image, and other targets.

    Args:
        labels: one value for each image, or None.
        names: names of the classes, by number, if known.
    """
    classes = (int, str, bool)
    numbers = isinstance(labels, Tensor) or getattr(labels, "dtype", np.dtype("O")).kind != "O"
    if numbers and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    one = numbers and labels.ndim == 1
    if labels is None or one or all(isinstance(label, classes) for label in labels):
        return Targets(labels)
    if all(isinstance(label, (int, float)) and float(label).is_integer() for label in labels):
        return Targets([int(label) for label in labels])
    fields = {"labels": as_field(labels)}
    if (found := multi_hot(labels, names)) is not None:
        return Targets(None, *found, fields, (several(len(found[1])),))
    kind = next(type(label).__name__ for label in labels if not isinstance(label, classes))
    why = (
        f"The targets (of type {kind}) are not one class per item, nor several (names or numbers "
        "of classes, or 0 and 1 for every class): nothing can be measured with them. They are the "
        "images' field 'labels'."
    )
    return Targets(fields=fields, notes=(why,))


def several(count: int) -> str:
    """Say what is measured with images that have several of ``count`` classes each."""
    return (
        f"The images have several of {count} classes each. A run does not measure that: afterwards "
        "coview evaluate knn, linear and finetune do, by mean average precision."
    )


def multi_hot(labels: Any, names: Any = None) -> tuple[Tensor, tuple[str, ...]] | None:
    """Return which classes each image has, (N, C) bool, and the names of the classes.

    Args:
        labels: for each image 0 or 1 for every class; or a list of the names, or of the
            numbers from 0, of its classes. Numbers of one length that are not all 0 or 1
            might be boxes, and count as neither.
        names: names of the classes, by number, if known.

    Returns:
        None if the labels are something else, or of one class in all.
    """
    together = as_field(labels)
    if not isinstance(together, Tensor):
        return _from_lists(together, names)
    if together.ndim != 2 or together.shape[1] < 2:
        return None
    if not bool(((together == 0) | (together == 1)).all()):
        return None
    count = together.shape[1]
    known = names is not None and len(names) == count
    return together.bool(), tuple(map(str, names if known else range(count)))


def _from_lists(labels: Sequence[Any], names: Any) -> tuple[Tensor, tuple[str, ...]] | None:
    rows = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    if not all(isinstance(row, (list, tuple, set, frozenset)) for row in rows):
        return None
    found: set[Any] = {value for row in rows for value in row}
    kinds = {type(value) for row in rows for value in row}
    if len(found) < 2 or kinds not in ({int}, {str}) or (kinds == {int} and min(found) < 0):
        return None
    ordered = sorted(found)
    place = {value: number for number, value in enumerate(ordered)}
    hot = torch.zeros(len(rows), len(ordered), dtype=torch.bool)
    for row, values in enumerate(rows):
        hot[row, [place[value] for value in values]] = True
    named = kinds == {int} and names is not None and ordered[-1] < len(names)
    return hot, tuple(str(names[value] if named else value) for value in ordered)


def _together(labels: Sequence[Any]) -> Tensor | list[Any]:
    """Return targets (N, ...) as one tensor if they are numbers of one shape, else as a list."""
    try:
        return torch.stack([torch.as_tensor(label) for label in labels])
    except (TypeError, ValueError, RuntimeError):
        return list(labels)


def as_field(values: Any) -> Tensor | list[Any]:
    """Return a field as a tensor (N, ...) if its values are numbers of one shape."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    if isinstance(values, np.ndarray) and values.dtype.kind not in "biuf":
        return list(values.tolist())
    return _together(values)
