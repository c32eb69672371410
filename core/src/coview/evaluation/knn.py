"""k-nearest-neighbour accuracy, or average precision, by cosine: a weighted or a plain vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.data.base import ImageData
from coview.data.splits import class_sizes
from coview.errors import RequestError
from coview.evaluation.features import TEST, TRAINING, feature_batches, features
from coview.evaluation.metrics import Measured, class_count, measures
from coview.evaluation.neighbours import QUERIES, nearest, precision
from coview.evaluation.rows import InFile, InMemory, Rows

VOTES = ("weighted", "plain")
DECIMALS = 5
NEIGHBOURS = 200
"""Neighbours that vote in most papers: a small part of ImageNet."""
FEW = 1_000
"""Training images below which so many are too large a part of them."""
FEWEST = 5
"""Neighbours that vote at least, unless it is said otherwise."""
MOST_IN_MEMORY = 1 << 30
"""Training features up to this size (bytes, in float32) are kept in memory."""


@attrs.frozen(kw_only=True)
class KNNResult(Measured):
    """A result and the protocol by which it was measured; a plain vote has no temperature.

    ``precision`` says in which precision neighbours were found and scored, ``features`` what
    was compared if it was not the backbone's features.
    """

    k: int
    temperature: float | None
    train_images: int
    test_images: int
    classes: int
    precision: str = "float32"
    features: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, including the protocol."""
        vote = "plain" if self.temperature is None else "weighted"
        known = self.plain()
        if self.features is None:
            known.pop("features", None)
        return {"protocol": f"{vote} kNN, cosine", **known}


def fitting(truth: Tensor) -> int:
    """Return how many neighbours vote unless it is said: 200, or of few images fewer.

    If more vote than the smallest class has images, other classes always do.

    Args:
        truth: the training images' classes: (N,) int64, or (N, C) bool.
    """
    if len(truth) >= FEW:
        return NEIGHBOURS
    sizes = class_sizes(truth)
    sizes = sizes[sizes > 0]
    smallest = int(sizes.min()) if len(sizes) else NEIGHBOURS
    return min(NEIGHBOURS, max(FEWEST, smallest))


def vote(
    train: Tensor | Rows,
    labels: Tensor,
    queries: Tensor,
    classes: int,
    k: int = 200,
    temperature: float | None = 0.07,
    chunk: int = QUERIES,
) -> Tensor:
    """Return class scores (Q, classes) from the k training rows of largest cosine s.

    Weighted (Wu et al. 2018, section 3.4): each adds exp(s / temperature) to
    its class. Plain (``temperature`` None): each adds 1, and a tie goes to the
    class whose neighbours have the larger cosines.

    Where images have several classes, each neighbour adds to all of its own. The scores of
    different queries are then compared: weights of a weighted vote are shares of their sum,
    rounded, as all of several numbers is not always 1 to the last bit.

    Args:
        train: (N, D) float, any length.
        labels: (N,) int64, or (N, classes) bool.
        queries: (Q, D) float, any length.
        classes: number of classes.
        k: at most N.
        temperature: see above.
        chunk: number of queries compared at once.
    """
    rows = InMemory(train) if isinstance(train, Tensor) else train
    scores = []
    for similarity, places in nearest(rows, queries, k, queries_at_once=chunk):
        if temperature is None:
            # Cosines are at most 1, so all of them together count less than half a vote.
            weight = 1 + similarity / (4 * k)
        else:
            # Subtracting the row's maximum keeps the order and cannot overflow.
            weight = ((similarity - similarity[:, :1]) / temperature).exp()
        if labels.ndim == 2:
            scores.append(_by_class(weight, labels.to(places.device), places, temperature))
            continue
        found = labels.to(places.device)[places]
        scores.append(weight.new_zeros(len(weight), classes).scatter_add_(1, found, weight))
    return torch.cat(scores)


def _by_class(weight: Tensor, hot: Tensor, places: Tensor, temperature: float | None) -> Tensor:
    """Return (q, C), the weight of each query's neighbours (q, k) that have the class."""
    share = weight if temperature is None else weight / weight.sum(dim=1, keepdim=True)
    scores = weight.new_zeros(len(weight), hot.shape[1])
    for own, place in zip(share.T, places.T, strict=True):  # never (q, k, C) at once
        scores += own[:, None] * hot[place]
    return scores if temperature is None else scores.round(decimals=DECIMALS)


def accuracy(
    train: Tensor | Rows,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    classes: int,
    *,
    k: int = 200,
    temperature: float | None = 0.07,
) -> KNNResult:
    """Return top-1 and top-5 accuracy of ``queries`` by vote among ``train``.

    Or the mean average precision, if ``labels`` (N, C) and ``truth`` (Q, C) are multi-hot.
    If k is larger than the training set, all of it votes. A class without a vote is
    not among the first 5: with k = 1, both accuracies are the same.
    """
    k = min(k, len(train))
    scores = vote(train, labels, queries, classes, k, temperature).cpu()
    return KNNResult(
        **measures(scores, truth.cpu(), votes=True),
        k=k,
        temperature=temperature,
        train_images=len(train),
        test_images=len(queries),
        classes=classes,
        precision=precision(train, queries, k),
    )


def evaluate_knn(
    network: Callable[[Tensor], Tensor],
    data: ImageData,
    *,
    k: int | None = None,
    temperature: float | None = 0.07,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    most_in_memory: int = MOST_IN_MEMORY,
) -> KNNResult:
    """Return the kNN accuracy of a network's features on the data's test split.

    As :func:`evaluate_votes`, with one vote; k None: :func:`fitting`.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "workers": workers}
    votes: list[tuple[int | None, float | None]] = [(k, temperature)]
    return evaluate_votes(network, data, votes, most_in_memory=most_in_memory, **options)[0]


def evaluate_votes(
    network: Callable[[Tensor], Tensor],
    data: ImageData,
    votes: Sequence[tuple[int | None, float | None]],
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    most_in_memory: int = MOST_IN_MEMORY,
) -> list[KNNResult]:
    """Return the accuracy by each vote (k, temperature) on features that are computed once.

    Where images have several classes it is the mean average precision. A k of None is
    :func:`fitting`.

    Training features of more than ``most_in_memory`` bytes are written to a
    temporary file in bfloat16 (``TMPDIR`` says where).

    Raises:
        RequestError: the data have no labels or no test split.
        CoviewError: features are not finite, or the network changed.
    """
    reference, test = measured_splits(data)
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "workers": workers}
    known, truth = reference.truth, test.truth
    assert known is not None and truth is not None
    queries = features(network, test, what=TEST, **options)
    with TemporaryDirectory(prefix="coview-") as folder:
        rows: Tensor | Rows
        if len(reference) * queries.shape[1] * 4 > most_in_memory:
            path = Path(folder) / "features.bf16"
            batches = feature_batches(network, reference, what=TRAINING, **options)
            rows = InFile.write(path, batches)
        else:
            # To the queries' device all at once, not row by row when neighbours are scored.
            rows = features(network, reference, what=TRAINING, **options).to(device)
        labels, wanted = reference.kept(known), test.kept(truth)
        classes, queries = class_count(data, known, truth), queries.to(device)
        return [
            accuracy(rows, labels, queries, wanted, classes, k=k, temperature=temperature)
            for k, temperature in ((k or fitting(labels), t) for k, t in votes)
        ]


def labelled_splits(data: ImageData) -> tuple[Any, Any]:
    """Return the reference and test splits, both with labels: one class per image.

    Raises:
        RequestError: the data have no labels or no test split, or images have several classes.
    """
    if data.multi_label:
        raise RequestError(
            f"The images of {data.name} have several classes each, and this needs one per image. "
            "evaluate knn, linear (--protocol grid) and finetune measure several."
        )
    return measured_splits(data)


def measured_splits(data: ImageData) -> tuple[Any, Any]:
    """Return the reference and test splits, both with one class per image, or several.

    Raises:
        RequestError: the data have no labels or no test split.
    """
    if data.test is None or not (data.labelled or data.multi_label):
        raise RequestError(
            f"{data.name} has no labels, so no accuracy can be measured. A folder needs a "
            "sub-folder for each class, other data a label for each image. What a network takes "
            "for alike can be looked at without: coview neighbours RUN"
        )
    return data.reference, data.test
