"""Accuracies, computed with torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_recall

from coview.data.base import ImageData

TOP = 5
"""Classes that may be named for an image in ``top5``."""


def accuracies(scores: Tensor, truth: Tensor, votes: bool = False) -> dict[str, float]:
    """Return ``top1``, ``top5`` and ``mean_per_class`` as shares.

    Args:
        scores: (Q, classes), the largest wins.
        truth: (Q,) int64.
        votes: scores are votes, and a class without any is not among the first 5.

    The mean per class is over the classes in ``truth``: a class without a test
    image has no accuracy.
    """
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
    """Return the number of classes: those that have names, or more if labels need it."""
    return max(len(data.classes), *(int(each.max()) + 1 for each in labels), 2)


def percentages(values: dict[str, Any]) -> str:
    """Format the result of :func:`accuracies` for people.

    Among five classes or fewer (``classes``) the truth is always among the first five, so
    top-5 is left out.
    """
    names = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
    if values.get("classes", TOP + 1) <= TOP:
        del names["top5"]
    return ", ".join(f"{name} {100 * values[key]:.1f} %" for key, name in names.items())
