"""Weighted k-nearest-neighbour accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics.functional.classification import multiclass_accuracy

from coview.data.base import ImageData
from coview.errors import RequestError
from coview.evaluation.features import features


@attrs.frozen
class KNNResult:
    """An accuracy with the protocol that gave it."""

    top1: float
    top5: float
    k: int
    temperature: float
    train_images: int
    test_images: int
    classes: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, protocol named."""
        return {"protocol": "weighted kNN, cosine", **attrs.asdict(self)}


def vote(
    train: Tensor,
    labels: Tensor,
    queries: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Return class scores (Q, classes) by weighted vote (Wu et al. 2018, section 3.4).

    Each of the k training rows of largest cosine s adds exp(s / temperature) to
    its class. Queries are taken ``chunk`` at a time, so that memory is bounded
    by chunk x N.

    Args:
        train: (N, D) float, any length.
        labels: (N,) int64.
        queries: (Q, D) float, any length.
    """
    train = normalize(train, dim=1)
    scores = []
    for part in normalize(queries, dim=1).split(chunk):
        similarity, nearest = (part @ train.T).topk(k, dim=1)
        # Subtracting the row's maximum changes no order and cannot overflow.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        scores.append(part.new_zeros(len(part), classes).scatter_add_(1, labels[nearest], weight))
    return torch.cat(scores)


def accuracy(
    train: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    classes: int,
    *,
    k: int = 200,
    temperature: float = 0.07,
) -> KNNResult:
    """Return top-1 and top-5 accuracy of ``queries`` by vote among ``train``.

    A k larger than the training set is the training set's size.
    """
    k = min(k, len(train))
    scores = vote(train, labels, queries, classes, k, temperature)

    def top(n: int) -> float:
        return float(
            multiclass_accuracy(
                scores, truth, num_classes=classes, top_k=min(n, classes), average="micro"
            )
        )

    return KNNResult(top(1), top(5), k, temperature, len(train), len(queries), classes)


def evaluate_knn(
    network: Callable[[Tensor], Tensor],
    data: ImageData,
    *,
    k: int = 200,
    temperature: float = 0.07,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> KNNResult:
    """Return the kNN accuracy of a network's features on the data's test split.

    Raises:
        RequestError: the data have no labels or no test split.
    """
    reference, test = labelled_splits(data)

    def of(split: Any) -> Tensor:
        return features(network, split, batch_size=batch_size, device=device, workers=workers)

    assert reference.labels is not None and test.labels is not None
    return accuracy(
        of(reference),
        reference.labels,
        of(test),
        test.labels,
        max(len(data.classes), 1),
        k=k,
        temperature=temperature,
    )


def labelled_splits(data: ImageData) -> tuple[Any, Any]:
    """Return the reference and test splits, both with labels.

    Raises:
        RequestError: one of them has none.
    """
    if not data.labelled:
        raise RequestError(
            f"{data.name} has no labels to measure an accuracy with: a folder needs a sub-folder "
            "for each class."
        )
    return data.reference, data.test
