"""What Python data say of each image: one class, or other targets, which become fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


def plain_label(label: Any) -> Any:
    """Return a label of one element as Python's own number or text; others as they are."""
    if isinstance(label, Tensor):
        return label.item() if label.numel() == 1 else label
    one = isinstance(label, (np.ndarray, np.generic)) and label.size == 1
    return label.item() if one else label


def single_classes(labels: Any) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Tell apart labels that are one class each from targets that are something else.

    Args:
        labels: one for each item, or None.

    Returns:
        The labels, or None if they are no classes; the fields of a split that such
        targets become, ``labels`` (N, ...); and a sentence about it, if so.
    """
    classes = (int, str, bool)
    if labels is None or all(isinstance(label, classes) for label in labels):
        return labels, {}, ()
    if all(isinstance(label, (int, float)) and float(label).is_integer() for label in labels):
        return [int(label) for label in labels], {}, ()
    kind = next(type(label).__name__ for label in labels if not isinstance(label, classes))
    return (
        None,
        {"labels": _together(labels)},
        (
            f"The targets (of type {kind}) are not one class per item: accuracies cannot be "
            "measured with them. They are the images' field 'labels'.",
        ),
    )


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
