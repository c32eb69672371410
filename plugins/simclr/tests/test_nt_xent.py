"""NT-Xent: in-batch negatives and InfoNCE, named by this package's recipe."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import coview
from coview import Encoded, Step, Targets

A = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
B = torch.tensor([[4.0, 3.0], [0.0, 2.0]], dtype=torch.float64)


def nt_xent(a: Tensor, b: Tensor, tau: float, views: str = "all") -> Tensor:
    own = torch.arange(len(a))
    both, names = {0: a, 1: b}, {0: own, 1: own}
    targets = Targets(both, names)
    negatives = coview.component("negatives", "in-batch", views=views).draw_negatives(targets)
    loss: Any = coview.component("losses", "info-nce", temperature=tau)
    encoded = Encoded(both, both, names, ((0, 1), (1, 0)), {})
    value: Tensor = loss.compute_loss(encoded, targets, (negatives,), Step())
    return value


def slow_nt_xent(a: Tensor, b: Tensor, tau: float) -> list[float]:
    """Algorithm 1: the loss of each of the 2N items, first views first."""
    items = [*a.tolist(), *b.tolist()]
    count = len(items)

    def s(i: int, j: int) -> float:
        dot = sum(x * y for x, y in zip(items[i], items[j], strict=True))
        return dot / (math.hypot(*items[i]) * math.hypot(*items[j])) / tau

    losses = []
    for i in range(count):
        partner = (i + count // 2) % count
        whole = sum(math.exp(s(i, k)) for k in range(count) if k != i)
        losses.append(math.log(whole) - s(i, partner))
    return losses


@pytest.mark.parametrize("rows", [2, 3, 8])
@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_equals_the_algorithm(rows: int, tau: float) -> None:
    make = torch.Generator().manual_seed(rows)
    a, b = torch.randn(2, rows, 4, generator=make, dtype=torch.float64)
    expected = slow_nt_xent(a, b, tau)
    assert nt_xent(a, b, tau).item() == pytest.approx(sum(expected) / len(expected), abs=1e-12)


@pytest.mark.parametrize("tau, expected", [(0.1, 9.0796e-5), (0.5, 0.239545), (1.0, 0.551445)])
def test_two_orthogonal_images(tau: float, expected: float) -> None:
    eye = torch.eye(2, dtype=torch.float64)
    value = nt_xent(eye, eye, tau).item()
    assert value == pytest.approx(expected, rel=1e-4)
    assert value == pytest.approx(math.log(1 + 2 * math.exp(-1 / tau)), abs=1e-12)


@pytest.mark.parametrize("tau, expected", [(0.5, 1.510714), (0.1, 4.166802), (1.0, 1.277474)])
def test_the_worked_example(tau: float, expected: float) -> None:
    assert nt_xent(A, B, tau).item() == pytest.approx(expected, abs=1e-6)


def test_the_worked_example_item_by_item() -> None:
    """The reference itself is right: order a1, a2, b1, b2."""
    expected = (0.794304, 2.227123, 0.794304, 2.227123)
    assert slow_nt_xent(A, B, 0.5) == pytest.approx(expected, abs=1e-6)


def test_negatives_of_the_own_view_are_not_forgotten() -> None:
    """Comparing across views only gives another value, which is not NT-Xent."""
    assert nt_xent(A, B, 0.5, views="key").item() == pytest.approx(1.164897, abs=1e-6)
    assert abs(nt_xent(A, B, 0.5).item() - 1.164897) > 0.3


def test_wrong_pairs_are_noticed() -> None:
    assert nt_xent(A, B.flip(0), 0.5).item() != pytest.approx(1.510714, abs=0.1)


@pytest.mark.parametrize("rows, expected", [(256, 6.236370), (512, 6.930495)])
def test_collapse_costs_the_logarithm_of_the_candidates(rows: int, expected: float) -> None:
    """log(2N - 1): exactly 2(N - 1) negatives and the positive."""
    same = torch.ones(rows, 8, dtype=torch.float64)
    assert nt_xent(same, same, 0.1).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("tau, expected", [(0.1, 7.3211), (0.5, 6.9461)])
def test_random_embeddings(tau: float, expected: float) -> None:
    make = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 512, 128, generator=make)
    assert nt_xent(a, b, tau).item() == pytest.approx(expected, abs=0.08)


def test_gradient_reaches_both_views_as_finite_differences_say() -> None:
    make = torch.Generator().manual_seed(1)
    a, b = (x.requires_grad_() for x in torch.randn(2, 3, 2, generator=make, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x, y: nt_xent(x, y, 0.5), (a, b))
    nt_xent(a, b, 0.5).backward()
    assert a.grad is not None and b.grad is not None
    step, moved = 1e-6, b.detach().clone()
    moved[1, 0] += step
    at, by = (sum(slow_nt_xent(a.detach(), x, 0.5)) / 6 for x in (b.detach(), moved))
    assert b.grad[1, 0].item() == pytest.approx((by - at) / step, abs=1e-5)


def test_length_and_batch_order_do_not_count() -> None:
    make = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 5, 3, generator=make, dtype=torch.float64)
    order = torch.randperm(5, generator=make)
    scales = torch.rand(5, 1, generator=make, dtype=torch.float64) + 0.1
    plain = nt_xent(a, b, 0.1).item()
    assert nt_xent(a[order], b[order], 0.1).item() == pytest.approx(plain, abs=1e-10)
    assert nt_xent(a * scales, b * 9, 0.1).item() == pytest.approx(plain, abs=1e-10)


def test_without_negatives_the_loss_is_refused() -> None:
    recipe = attrs.evolve(coview.recipe("simclr"), negatives="none")
    with pytest.raises(coview.RequestError, match="needs negatives: it compares the positive"):
        coview.build(recipe, coview.Plan())
