"""A linear support vector machine on frozen features, the evaluation of early methods."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import attrs
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor

from coview.data.base import ImageData
from coview.errors import CoviewError
from coview.evaluation.features import TEST, TRAINING, features
from coview.evaluation.knn import labelled_splits
from coview.evaluation.linear import Heads, Standard, save_linear
from coview.evaluation.metrics import Measured, class_count, measures
from coview.optim.protocols import SupportVectors
from coview.weights.classifier import refuse_unsavable
from coview.weights.exported import ExportedBackbone

PASSES = 10_000
"""Number of passes after which liblinear gives up."""


@attrs.frozen(kw_only=True)
class SvmResult(Measured):
    """An accuracy and the published protocol by which it was measured."""

    source: str
    cost: float
    seed: int
    train_images: int
    test_images: int
    classes: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, including the protocol."""
        return {"protocol": "linear SVM, offline, frozen features", **self.plain()}


def evaluate_svm(
    network: ExportedBackbone,
    data: ImageData,
    protocol: SupportVectors,
    *,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    save: Path | None = None,
) -> SvmResult:
    """Return the accuracy of a support vector machine on the data's test split.

    Features are computed once, without augmentation, and standardised with the
    reference images' statistics. The machine is trained on the CPU.

    Raises:
        RequestError: there are no labels or no test split, or the network cannot be saved.
        CoviewError: features are not finite, the network changed, or the fit did not converge.
    """
    if save is not None:
        refuse_unsavable(network)
    reference, test = labelled_splits(data)
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "workers": workers}
    rows = features(network, reference, what=TRAINING, **options)
    queries = features(network, test, what=TEST, **options)
    labels, truth = reference.kept(reference.labels), test.kept(test.labels)
    standard = Standard.of(rows)
    classes = class_count(data, labels, truth)
    heads = support_vectors(standard(rows), labels, classes, protocol.cost, seed)
    if save is not None:
        save_linear(network, heads, standard, save)
    return SvmResult(
        **measures(heads.scores(standard(queries))[0], truth),
        source=protocol.source,
        cost=protocol.cost,
        seed=seed,
        train_images=len(rows),
        test_images=len(queries),
        classes=classes,
    )


def support_vectors(rows: Tensor, labels: Tensor, classes: int, cost: float, seed: int) -> Heads:
    """Minimise, for each class, |w|^2 / 2 + b^2 / 2 + cost x sum of max(0, 1 - y (w x + b))^2.

    y is 1 for the class's own rows and -1 for all others. A class without rows
    never wins.

    Args:
        rows: (N, D), standardised, on the CPU.
        labels: (N,) int64.
        classes: K.
        cost: weight of errors.
        seed: seed of the order in which coordinates are visited.

    Returns:
        One head: weights (1, D, K), biases (1, K).

    Raises:
        CoviewError: the fit did not converge.
    """
    weights = rows.new_zeros(rows.shape[1], classes)
    biases = torch.full((classes,), torch.finfo(rows.dtype).min, dtype=rows.dtype)
    present = labels.unique()
    if len(present) == 1:
        biases[present] = 0.0
        return Heads(weights[None], biases[None])
    machine = LinearSVC(C=cost, dual="auto", max_iter=PASSES, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            machine.fit(rows.double().numpy(), labels.numpy())
        except ConvergenceWarning as error:
            raise CoviewError(
                f"The support vector machine did not converge in {PASSES} passes. Try a smaller "
                "cost."
            ) from error
    found = torch.from_numpy(machine.coef_).to(rows), torch.from_numpy(machine.intercept_).to(rows)
    if len(present) == 2:  # one machine separates both; the second class has its opposite
        found = torch.cat([-found[0], found[0]]), torch.cat([-found[1], found[1]])
    weights[:, present], biases[present] = found[0].T, found[1]
    return Heads(weights[None], biases[None])
