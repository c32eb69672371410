"""Each measure of collapse against its formula, in loops and in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coview import Step
from coview.losses.assignments import log_assignments
from coview.training.observers.collapse_measures import (
    alignment,
    deviation,
    effective_rank,
    uniformity,
)


def rows(count: int, width: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=make, dtype=torch.float64) + shift


def units(x: Tensor) -> list[list[float]]:
    return [[value / math.hypot(*row) for value in row] for row in x.tolist()]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("count, width, shift", [(7, 3, 0.0), (4, 9, 2.0)])
def test_deviation(count: int, width: int, shift: float) -> None:
    x = rows(count, width, shift=shift)
    columns = [list(column) for column in zip(*units(x), strict=True)]
    spreads = [math.sqrt(mean([(v - mean(c)) ** 2 for v in c])) for c in columns]
    assert deviation(x).item() == pytest.approx(mean(spreads) * math.sqrt(width), abs=1e-12)


def test_deviation_of_what_the_sheet_has() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    assert deviation(torch.cat([eye, -eye])).item() == pytest.approx(1)  # .5 = 1 / sqrt(4) each
    assert deviation(torch.ones(8, 4)).item() == pytest.approx(0, abs=1e-6)
    random = rows(4096, 256).float()
    assert deviation(random).item() == pytest.approx(1, abs=0.01)
    # A common offset of 5 a coordinate: a partial collapse is a drop, and not to zero.
    assert deviation(random + 5).item() == pytest.approx(0.004331 / 0.022093, abs=0.01)


@pytest.mark.parametrize("count, width, shift", [(6, 4, 0.0), (4, 6, 1.0), (5, 5, 3.0)])
def test_effective_rank(count: int, width: int, shift: float) -> None:
    x = rows(count, width, shift=shift)
    values = np.linalg.svd(x.numpy(), compute_uv=False).tolist()
    shares = [value / math.fsum(values) for value in values]
    expected = math.exp(-math.fsum(p * math.log(p) for p in shares))
    assert effective_rank(x).item() == pytest.approx(expected, rel=1e-9)


def test_effective_rank_of_what_is_known() -> None:
    assert effective_rank(torch.eye(6)).item() == pytest.approx(6)
    one = torch.outer(torch.arange(1.0, 9.0), torch.arange(1.0, 6.0))
    # Rounding in float32 makes directions of a ten-millionth of the first's length.
    assert effective_rank(one).item() == pytest.approx(1, abs=1e-4)
    two = torch.tensor([[3.0, 0, 0], [0, 3.0, 0]])
    assert effective_rank(two).item() == pytest.approx(2)
    assert effective_rank(torch.zeros(4, 3)).item() == pytest.approx(1)


def test_effective_rank_leaves_numbers_that_are_none_to_others() -> None:
    x = rows(5, 3)
    x[2, 1], x[3, 0] = math.nan, math.inf
    clean = x.clone()
    clean[2, 1] = clean[3, 0] = 0
    assert effective_rank(x).item() == pytest.approx(effective_rank(clean).item())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_effective_rank_lies_between_one_and_the_smaller_side(
    count: int, width: int, scale: float, seed: int
) -> None:
    x = rows(count, width, seed)
    rank = effective_rank(x).item()
    assert 1 - 1e-9 <= rank <= min(count, width) + 1e-9
    assert effective_rank(x * scale).item() == pytest.approx(rank, rel=1e-6)
    assert effective_rank(x[torch.randperm(count)]).item() == pytest.approx(rank, rel=1e-6)


def test_alignment_and_uniformity() -> None:
    x, y = rows(6, 3), rows(6, 3, seed=1)
    a, b = units(x), units(y)

    def squared(p: list[float], q: list[float]) -> float:
        return math.fsum((s - t) ** 2 for s, t in zip(p, q, strict=True))

    aligned = mean([squared(p, q) for p, q in zip(a, b, strict=True)])
    assert alignment(x, y).item() == pytest.approx(aligned, abs=1e-12)
    potentials = [math.exp(-2 * squared(a[i], a[j])) for i in range(6) for j in range(6) if i != j]
    assert uniformity(x).item() == pytest.approx(math.log(mean(potentials)), abs=1e-9)


def test_alignment_and_uniformity_at_their_ends() -> None:
    x = rows(5, 4)
    assert alignment(x, 3 * x).item() == pytest.approx(0, abs=1e-12)
    assert alignment(x, -x).item() == pytest.approx(4)
    assert uniformity(torch.ones(5, 4)).item() == pytest.approx(0, abs=1e-6)
    # Rows without a direction are not spread out: with unit vectors they would give -4.
    assert uniformity(torch.zeros(5, 4)).item() == pytest.approx(0, abs=1e-12)
    opposite = torch.tensor([[1.0, 0], [-1.0, 0]])
    assert uniformity(opposite).item() == pytest.approx(-8, abs=1e-5)


def test_measures_take_no_gradient_and_leave_their_rows() -> None:
    x = rows(5, 4).requires_grad_()
    kept = x.detach().clone()
    for value in (deviation(x), effective_rank(x), uniformity(x), alignment(x, x)):
        assert value.shape == () and not value.requires_grad
    assert torch.equal(x, kept)


def entropy(row: list[float]) -> float:
    return -math.fsum(p * math.log(p) for p in row if p > 0)


def logged(**given: object) -> dict[str, float]:
    found: dict[str, Tensor] = {}
    log_assignments(Step(sink=found.__setitem__), **given)  # type: ignore[arg-type]
    return {name: value.item() for name, value in found.items()}


def test_assignments() -> None:
    one, other = (rows(5, 7, seed=s).mul(2).softmax(-1) for s in (0, 1))
    told = rows(5, 7, seed=2).log_softmax(-1)
    crossed = [-(code * told).sum(-1).mean() for code in (one, other)]
    found = logged(targets={0: one, 3: other}, cross_entropies=[(0, crossed[0]), (3, crossed[1])])
    each = mean([entropy(row) for code in (one, other) for row in code.tolist()])
    columns = [[mean(list(c)) for c in zip(*code.tolist(), strict=True)] for code in (one, other)]
    together = mean([entropy(row) for row in columns])
    divergences = [
        math.fsum(p * (math.log(p) - t) for p, t in zip(row, log, strict=True))
        for code in (one, other)
        for row, log in zip(code.tolist(), told.tolist(), strict=True)
    ]
    assert found["assignment_entropy"] == pytest.approx(each / math.log(7), abs=1e-9)
    assert found["assignment_mean_entropy"] == pytest.approx(together / math.log(7), abs=1e-9)
    information = (together - each) / math.log(5)
    assert found["assignment_information"] == pytest.approx(information, abs=1e-9)
    assert found["assignment_divergence"] == pytest.approx(mean(divergences), abs=1e-9)


@pytest.mark.parametrize(
    "codes, entropies, information",
    [
        (torch.eye(4), (0, 1), 1),  # each row an output of its own
        (torch.eye(4)[[2, 2, 2, 2]], (0, 0), 0),  # one output takes all
        (torch.full((4, 4), 0.25), (1, 1), 0),  # every row over all outputs
    ],
)
def test_both_ways_to_fail_have_no_information(
    codes: Tensor, entropies: tuple[float, float], information: float
) -> None:
    found = logged(targets={0: codes})
    assert found["assignment_information"] == pytest.approx(information, abs=1e-6)
    both = (found["assignment_entropy"], found["assignment_mean_entropy"])
    assert both == pytest.approx(entropies, abs=1e-6)
    assert "assignment_divergence" not in found
