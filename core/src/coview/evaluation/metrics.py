"""Accuracies and average precisions, computed with torchmetrics.

It is imported where something is measured: that takes as long as importing torch.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from coview.data.base import ImageData
from coview.errors import RequestError

TOP = 5
"""Classes that may be named for an image in ``top5``."""


NAN = float("nan")
OF_ONE = ("top1", "top5", "mean_per_class", "validation_top1")
"""What is measured where every image has one class."""
OF_SEVERAL = (
    *("mean_average_precision", "classes_measured"),
    "validation_mean_average_precision",
)
"""What is measured where images may have several."""


@attrs.frozen(kw_only=True)
class Measured:
    """What was measured: of images that have one class each, or several.

    Attributes:
        top1, top5, mean_per_class: shares; NaN if images have several classes.
        mean_average_precision: mean over classes with test images; NaN if images have one class.
        classes_measured: number of these classes.
    """

    top1: float = attrs.field(default=NAN, eq=repr)  # by its text, NaN equals NaN
    top5: float = attrs.field(default=NAN, eq=repr)
    mean_per_class: float = attrs.field(default=NAN, eq=repr)
    mean_average_precision: float = attrs.field(default=NAN, eq=repr)
    classes_measured: int = 0

    def plain(self) -> dict[str, Any]:
        """Return plain values, without those that were not measured."""
        none = OF_ONE if self.classes_measured else OF_SEVERAL
        return {name: value for name, value in attrs.asdict(self).items() if name not in none}


def measures(scores: Tensor, truth: Tensor, votes: bool = False) -> dict[str, Any]:
    """Return the values of a :class:`Measured`.

    Args:
        scores: (Q, C).
        truth: (Q,) int64, see :func:`accuracies`; or (Q, C) bool, which classes each has.
        votes: see :func:`accuracies`.

    Raises:
        RequestError: no image has any class.
    """
    if truth.ndim == 1:
        return accuracies(scores, truth, votes)
    each = average_precisions(scores, truth)
    there = ~each.isnan()
    if not there.any():
        raise RequestError("No test image has any of the classes, so nothing can be measured.")
    return {
        "mean_average_precision": float(each[there].mean()),
        "classes_measured": int(there.sum()),
    }


def average_precisions(scores: Tensor, truth: Tensor) -> Tensor:
    """Return the average precision of each class, (C,) float64; NaN if no image has it.

    It is the mean of the precision at every image that has the class, in the order of the
    class's scores; images of equal scores count as one place.

    Args:
        scores: (Q, C), without NaN.
        truth: (Q, C) bool.
    """
    from torchmetrics.functional.classification import binary_average_precision

    found = torch.full((truth.shape[1],), NAN, dtype=torch.float64)
    for number in truth.any(dim=0).nonzero().flatten().tolist():
        # As torchmetrics would put numbers beyond 0 to 1 through a sigmoid, which makes
        # large ones equal, it gets places: only the order counts.
        places = scores[:, number].unique(return_inverse=True)[1].double()
        own = places / len(places)
        found[number] = binary_average_precision(own, truth[:, number].long())
    return found


def accuracies(scores: Tensor, truth: Tensor, votes: bool = False) -> dict[str, float]:
    """Return ``top1``, ``top5`` and ``mean_per_class`` as shares.

    Args:
        scores: (Q, classes), the largest wins.
        truth: (Q,) int64.
        votes: scores are votes, and a class without any is not among the first 5.

    The mean per class is over the classes in ``truth``: a class without a test
    image has no accuracy.
    """
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_recall

    classes = scores.shape[1]
    counted = torch.ones(len(truth), dtype=torch.bool)
    if votes:
        counted = scores.gather(1, truth[:, None])[:, 0] > 0

    def top(n: int) -> float:
        if not counted.any():
            return 0.0
        value = multiclass_accuracy(
            scores[counted],
            truth[counted],
            num_classes=classes,
            top_k=min(n, classes),
            average="micro",
        )
        return float(value) * int(counted.sum()) / len(truth)

    each = multiclass_recall(scores.argmax(dim=1), truth, num_classes=classes, average="none")
    there = torch.bincount(truth, minlength=classes) > 0
    return {"top1": top(1), "top5": top(TOP), "mean_per_class": float(each[there].mean())}


def class_count(data: ImageData, *labels: Tensor) -> int:
    """Return the number of classes: those that have names, or more if labels need it.

    Args:
        data: whose classes may have names.
        labels: (N,) int64, or (N, C) bool, each.
    """
    if labels[0].ndim == 2:
        return labels[0].shape[1]
    return max(len(data.classes), *(int(each.max()) + 1 for each in labels), 2)


def percentages(values: dict[str, Any]) -> str:
    """Format the result of :func:`measures` for people.

    Among five classes or fewer (``classes``) the truth is always among the first five, so
    top-5 is left out.
    """
    if (count := values.get("classes_measured")) is not None:
        some = "" if count == values["classes"] else f" of {values['classes']}"
        share = 100 * values["mean_average_precision"]
        return f"mean average precision {share:.1f} % (over {count}{some} classes)"
    names = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
    if values.get("classes", TOP + 1) <= TOP:
        del names["top5"]
    return ", ".join(f"{name} {100 * values[key]:.1f} %" for key, name in names.items())
