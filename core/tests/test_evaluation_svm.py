"""The support vector machine: at the optimum of its objective, whatever classes there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coview.errors import CoviewError
from coview.evaluation import svm
from coview.evaluation.svm import support_vectors


def slope(
    rows: np.ndarray, own: np.ndarray, weights: np.ndarray, bias: float, cost: float
) -> tuple[np.ndarray, float]:
    """Return the objective's gradient for one class, a row at a time."""
    by_weight, by_bias = weights.copy(), bias
    for row, is_own in zip(rows, own, strict=True):
        sign = 1.0 if is_own else -1.0
        short = 1 - sign * (weights @ row + bias)
        if short > 0:
            by_weight = by_weight - 2 * cost * short * sign * row
            by_bias -= 2 * cost * short * sign
    return by_weight, by_bias


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), classes=st.integers(2, 4), cost=st.sampled_from([0.01, 0.1, 1.0]))
def test_the_gradient_vanishes(seed: int, classes: int, cost: float) -> None:
    random = np.random.RandomState(seed)
    labels = np.arange(24) % classes
    rows = random.randn(24, 3) + labels[:, None] * 0.7
    heads = support_vectors(torch.from_numpy(rows), torch.from_numpy(labels), classes, cost, seed=0)
    for label in range(classes):
        weights, bias = heads.weights[0, :, label].numpy(), float(heads.biases[0, label])
        by_weight, by_bias = slope(rows, labels == label, weights, bias, cost)
        start, start_bias = slope(rows, labels == label, np.zeros(3), 0.0, cost)
        scale = np.abs([*start, start_bias]).max()
        assert np.abs([*by_weight, by_bias]).max() < 1e-2 * scale


def test_classes_without_images_never_win() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.1, 0.0], [-1.0, 0.0], [-1.2, 0.0]])
    two = support_vectors(rows, torch.tensor([3, 3, 1, 1]), 5, 1.0, 0).scores(rows)[0]
    assert two.argmax(1).tolist() == [3, 3, 1, 1]
    assert (two[:, [0, 2, 4]] < two[:, [1, 3]].min()).all()
    one = support_vectors(rows, torch.tensor([2, 2, 2, 2]), 4, 1.0, 0).scores(rows)[0]
    assert one.argmax(1).tolist() == [2] * 4


def test_no_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "PASSES", 1)
    rows = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CoviewError, match="did not converge in 1 passes"):
        support_vectors(rows, torch.arange(30) % 2, 2, 100.0, 0)
