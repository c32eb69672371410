"""Both losses against slow ones written from the papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import coview
from coview import Encoded, Step, Targets
from coview_vicreg.statistics import mean_over_pairs, sum_of_squares

BOTH = ((0, 1), (1, 0))
LOSSES = ("vicreg", "barlow-twins")
SHAPES = ((7, 3), (4, 9), (5, 5))
"""More rows than columns, more columns than rows, as many."""


def double(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random(shape: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, *shape, generator=make, dtype=torch.float64)
    return 0.7 * first + 0.2, 0.5 * first + 0.6 * second


def value(
    name: str, first: Tensor, second: Tensor, step: Step | None = None, **chosen: Any
) -> Tensor:
    """Return a loss of two views that are each other's positives, as the target `shared` has it."""
    z = {0: first, 1: second}
    given_ = {"encoded": Encoded(z, z, {}, BOTH, {}), "targets": Targets(z, {})}
    if name == "vicreg":
        given_["step"] = step or Step()
    loss: Tensor = coview.component("losses", name, **chosen).compute_loss(**given_)
    return loss


def variance(column: list[float]) -> float:
    mean = sum(column) / len(column)
    return sum((x - mean) ** 2 for x in column) / (len(column) - 1)


def covariance(one: list[float], other: list[float]) -> float:
    means = sum(one) / len(one), sum(other) / len(other)
    products = ((x - means[0]) * (y - means[1]) for x, y in zip(one, other, strict=True))
    return sum(products) / (len(one) - 1)


def slow_vicreg(first: Tensor, second: Tensor) -> dict[str, float]:
    """Return the three terms, entry by entry."""
    rows, columns = first.shape
    squares = [
        (a - b) ** 2
        for x, y in zip(first.tolist(), second.tolist(), strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    missing, together = 0.0, 0.0
    for z in (first, second):
        each = z.T.tolist()
        missing += sum(max(0.0, 1 - math.sqrt(variance(c) + 1e-4)) for c in each) / columns
        together += (
            sum(
                covariance(each[i], each[j]) ** 2
                for i in range(columns)
                for j in range(columns)
                if i != j
            )
            / columns
        )
    return {
        "invariance": sum(squares) / (rows * columns),
        "variance": missing / 2,
        "covariance": together,
    }


def slow_barlow(first: Tensor, second: Tensor, redundancy: float) -> float:
    """Equations 1 and 2, entry by entry."""
    one, other = ([np.array(c) - np.mean(c) for c in z.T.tolist()] for z in (first, second))
    total = 0.0
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            entry = float(a @ b) / (math.sqrt(float(a @ a)) * math.sqrt(float(b @ b)))
            total += (1 - entry) ** 2 if i == j else redundancy * entry**2
    return total


@pytest.mark.parametrize("shape", SHAPES)
def test_vicreg_equals_the_formulas(shape: tuple[int, int]) -> None:
    first, second = random(shape)
    terms = slow_vicreg(first, second)
    expected = 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]
    logged: dict[str, float] = {}
    step = Step(sink=lambda name, seen: logged.update({name: seen.item()}))
    assert value("vicreg", first, second, step).item() == pytest.approx(expected, rel=1e-12)
    assert logged == pytest.approx(terms, rel=1e-12)
    for name, term in terms.items():
        alone = dict.fromkeys(terms, 0.0) | {name: 3.0}
        assert value("vicreg", first, second, **alone).item() == pytest.approx(3 * term, rel=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("redundancy", [0.0051, 2.0])
def test_barlow_twins_equals_the_formulas(shape: tuple[int, int], redundancy: float) -> None:
    first, second = random(shape)
    expected = slow_barlow(first, second, redundancy)
    seen = value("barlow-twins", first, second, redundancy=redundancy, epsilon=1e-14)
    assert seen.item() == pytest.approx(expected, rel=1e-10)


def test_barlow_twins_standardises_as_batch_norm_does() -> None:
    first, second = random((6, 4))
    norm = nn.BatchNorm1d(4, affine=False).double()
    matrix = norm(first).T @ norm(second) / 6
    diagonal = matrix.diagonal()
    others = matrix.square().sum() - diagonal.square().sum()
    expected = (1 - diagonal).square().sum() + 0.0051 * others
    assert value("barlow-twins", first, second).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_worked_example_of_vicreg() -> None:
    """Distance 1; a column without variance in one view; a covariance of 2 in the other."""
    first, second = double([[0, 0], [2, 0]]), double([[0, 0], [2, 2]])
    # 25 x 4 / 4, 25 x (1 - 0.01) / 2 / 2, 2 x 2^2 / 2.
    assert value("vicreg", first, second).item() == pytest.approx(25 + 6.1875 + 4, abs=1e-12)


def test_a_worked_example_of_barlow_twins() -> None:
    """C = ((1, 1), (0, 0)): one column correlates with both of the other view, one with none."""
    a, b = [1.0, 1, -1, -1], [1.0, -1, 1, -1]
    first, second = double([a, b]).T, double([a, a]).T
    seen = value("barlow-twins", first, second, epsilon=1e-14)
    assert seen.item() == pytest.approx(1.0051, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_its_gradient(name: str, shape: tuple[int, int]) -> None:
    first, second = (z.requires_grad_() for z in random(shape, seed=1))
    assert torch.autograd.gradcheck(lambda a, b: value(name, a, b), (first, second))
    ours, theirs = torch.autograd.grad(value(name, first, second), (first, second))
    # Moving all rows by the same vector changes nothing.
    together = (ours + theirs).sum(dim=0)
    torch.testing.assert_close(together, torch.zeros_like(together), atol=1e-10, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(LOSSES),
    st.permutations(range(5)),
    st.permutations(range(4)),
    st.floats(-3, 3),
)
def test_order_sides_and_shifts_do_not_count(
    name: str, rows: list[int], columns: list[int], shift: float
) -> None:
    first, second = random((5, 4))
    plain = value(name, first, second).item()
    moved = [z[rows][:, columns] + shift for z in (second, first)]
    assert value(name, *moved).item() == pytest.approx(plain, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=4), st.floats(-3, 3))
def test_barlow_twins_does_not_see_scale(scale: list[float], shift: float) -> None:
    first, second = random((6, 4))
    changed = second * double(scale) + shift
    plain = value("barlow-twins", first, second, epsilon=1e-14).item()
    seen = value("barlow-twins", first, changed, epsilon=1e-14).item()
    assert seen == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_a_collapsed_view_costs_more_than_a_spread_one(name: str) -> None:
    first, _ = random((64, 4))
    spread = value(name, 3 * first, 3 * first)
    constant = torch.ones_like(first)
    assert value(name, constant, constant) > spread + 0.5
    assert value(name, constant, constant).isfinite()


def test_a_collapsed_view_has_a_gradient_that_spreads_it() -> None:
    make = torch.Generator().manual_seed(0)
    near = (1e-3 * torch.randn(16, 4, generator=make, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(value("vicreg", near, near), near)
    with torch.no_grad():
        assert (near - 1e-3 * gradient).std(dim=0).gt(near.std(dim=0)).all()


def test_what_is_the_same_is_computed_once() -> None:
    """With the network as its own target the two directions are one; else they are two."""
    first, second = random((5, 3))
    z = {0: first, 1: second}
    keys = {0: first.clone(), 1: second.clone() + 1}
    made: list[int] = []
    terms: list[int] = []

    def prepare(rows: Tensor) -> Tensor:
        made.append(id(rows))
        return rows

    def compare(a: Tensor, b: Tensor) -> Tensor:
        terms.append(1)
        return (a - b).square().sum()

    encoded = Encoded(z, z, {}, BOTH, {})
    alone = mean_over_pairs(encoded, Targets(z, {}), prepare, compare)
    assert (len(made), len(terms)) == (2, 1)
    torch.testing.assert_close(alone, (first - second).square().sum())
    both = mean_over_pairs(encoded, Targets(keys, {}), prepare, compare)
    assert (len(made), len(terms)) == (2 + 4, 1 + 2)
    directions = (first - keys[1]).square().sum() + (second - keys[0]).square().sum()
    torch.testing.assert_close(both, directions / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_squares_from_the_smaller_product(shape: tuple[int, int]) -> None:
    first, second = random(shape)
    torch.testing.assert_close(sum_of_squares(first, second), (first.T @ second).square().sum())
    torch.testing.assert_close(sum_of_squares(first, first), (first.T @ first).square().sum())


def test_the_safeguard_is_declared() -> None:
    for name, setting in (("vicreg", "variance"), ("barlow-twins", "redundancy")):
        for factor, on in ((1.0, True), (0.0, False)):
            (guard,) = coview.component("losses", name, **{setting: factor}).guards()
            assert guard.on is on and f"loss.{setting}=" in guard.how
