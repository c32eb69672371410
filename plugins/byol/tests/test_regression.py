from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import coview
from coview import Encoded, Targets
from coview.recipes.configure import Changes, configure


def regression(**chosen: Any) -> Any:
    return coview.component("losses", "regression", **chosen)


def double(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def records(
    queries: dict[int, Tensor], keys: dict[int, Tensor], pairs: tuple[tuple[int, int], ...]
) -> tuple[Encoded, Targets]:
    return Encoded(queries, queries, {}, pairs, {}), Targets(keys, {})


def slow(prediction: Tensor, key: Tensor) -> float:
    """Equation 2: the squared distance of unit vectors, coordinate by coordinate."""
    total = 0.0
    for p, z in zip(prediction.tolist(), key.tolist(), strict=True):
        p_length, z_length = math.hypot(*p), math.hypot(*z)
        total += sum((a / p_length - b / z_length) ** 2 for a, b in zip(p, z, strict=True))
    return total / len(prediction)


@pytest.mark.parametrize("pairs", [((0, 1), (1, 0)), ((0, 1),), ((0, 1), (1, 0), (2, 0), (2, 1))])
def test_equals_the_formula(pairs: tuple[tuple[int, int], ...]) -> None:
    make = torch.Generator().manual_seed(0)
    q = {v: torch.randn(5, 4, generator=make, dtype=torch.float64) for v in range(3)}
    k = {v: torch.randn(5, 4, generator=make, dtype=torch.float64) for v in range(2)}
    terms = [slow(q[a], k[b]) for a, b in pairs]
    for reduction, expected in (("sum", sum(terms)), ("mean", sum(terms) / len(terms))):
        value = regression(reduction=reduction).compute_loss(*records(q, k, pairs))
        assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "prediction, key, expected",
    [
        ([[3, 4]], [[1, 0]], 0.8),
        ([[1, 0]], [[-1, 0]], 4.0),
        ([[3, 4], [1, 0]], [[1, 0], [-1, 0]], 2.4),
    ],
)
def test_the_worked_example(prediction: Any, key: Any, expected: float) -> None:
    """A mean over rows, not over rows and coordinates (which would give 1.2 for 2.4)."""
    given_ = records({0: double(prediction)}, {1: double(key)}, ((0, 1),))
    assert regression().compute_loss(*given_).item() == pytest.approx(expected, abs=1e-12)


def test_its_gradient() -> None:
    """Across the prediction: (-.256, .192), whose product with (3, 4) is nothing."""
    prediction = double([[3, 4]]).requires_grad_()
    key = double([[1, 0]])
    regression().compute_loss(*records({0: prediction}, {1: key}, ((0, 1),))).backward()
    assert prediction.grad is not None
    assert prediction.grad[0].tolist() == pytest.approx([-0.256, 0.192], abs=1e-12)
    assert (prediction.grad * prediction).sum().item() == pytest.approx(0, abs=1e-12)


def test_keys_take_gradient_where_the_target_passes_it() -> None:
    """Without stop-gradient the cosine pulls at both: d cos / d(1, 0) across it is (0, .8)."""
    prediction = double([[3, 4]])
    key = double([[1, 0]]).requires_grad_()
    regression().compute_loss(*records({0: prediction}, {1: key}, ((0, 1),))).backward()
    assert key.grad is not None
    assert key.grad[0].tolist() == pytest.approx([0, -1.6], abs=1e-12)


def test_both_directions_span_0_to_8() -> None:
    one, other = double([[2, 0]]), double([[-3, 0]])
    both = ((0, 1), (1, 0))
    apart = regression().compute_loss(*records({0: one, 1: other}, {0: one, 1: other}, both))
    same = regression().compute_loss(*records({0: one, 1: one}, {0: one, 1: one}, both))
    assert (apart.item(), same.item()) == (8, 0)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.permutations(range(4)))
def test_neither_length_nor_order_counts(ours: float, theirs: float, order: list[int]) -> None:
    make = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 4, 3, generator=make, dtype=torch.float64)
    plain = regression().compute_loss(*records({0: q}, {1: k}, ((0, 1),)))
    changed = records({0: q[order] * ours}, {1: k[order] * theirs}, ((0, 1),))
    assert regression().compute_loss(*changed).item() == pytest.approx(plain.item(), abs=1e-10)


def test_the_other_form_is_simsiam_s() -> None:
    """BYOL's sum of two directions is 4 + 4 L, L the mean of the negative cosines."""
    make = torch.Generator().manual_seed(2)
    q, k = ({v: torch.randn(6, 3, generator=make).double() for v in (0, 1)} for _ in range(2))
    given_ = records(q, k, ((0, 1), (1, 0)))
    mean = regression(form="negative-cosine", reduction="mean").compute_loss(*given_).item()
    cosines = [
        sum(a * b for a, b in zip(p, z, strict=True)) / math.hypot(*p) / math.hypot(*z)
        for i, j in ((0, 1), (1, 0))
        for p, z in zip(q[i].tolist(), k[j].tolist(), strict=True)
    ]
    assert mean == pytest.approx(-sum(cosines) / 12, abs=1e-12)
    assert regression().compute_loss(*given_).item() == pytest.approx(4 + 4 * mean, abs=1e-12)


def test_random_vectors_cost_two_a_direction() -> None:
    make = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, 4096, 256, generator=make)
    value = regression().compute_loss(*records({0: q, 1: k}, {0: q, 1: k}, ((0, 1), (1, 0))))
    assert value.item() == pytest.approx(4, abs=0.02)


def test_it_says_that_negatives_are_for_nothing() -> None:
    changes = Changes(use={"negatives": "queue"}, preset="none")
    found = configure("byol", None, changes, "test")
    assert "loss 'regression' ignores negatives: queue has no effect." in (found.notices)
    assert not configure("byol", None, Changes(preset="none"), "test").notices
