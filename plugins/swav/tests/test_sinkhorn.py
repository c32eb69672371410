"""The balanced assignment against the sheet's worked matrices and a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coview_swav import sinkhorn as module
from coview_swav.sinkhorn import sinkhorn

THREE = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.2, 0.4]], dtype=torch.float64)


def by_hand(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """Sinkhorn-Knopp as the paper writes it: exponentials, prototypes by samples."""
    samples, prototypes = len(scores), len(scores[0])
    q = [[math.exp(scores[b][k] / epsilon) for b in range(samples)] for k in range(prototypes)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        for k in range(prototypes):
            mass = sum(q[k])
            q[k] = [value / mass / prototypes for value in q[k]]
        for b in range(samples):
            mass = sum(q[k][b] for k in range(prototypes))
            for k in range(prototypes):
                q[k][b] = q[k][b] / mass / samples
    return [[samples * q[k][b] for k in range(prototypes)] for b in range(samples)]


def close(codes: Tensor, expected: list[list[float]], tolerance: float = 1e-6) -> bool:
    return torch.allclose(codes, torch.tensor(expected, dtype=codes.dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "iterations, expected",
    [
        (1, [[0.676244, 0.323756], [0.534088, 0.465912], [0.220383, 0.779617]]),
        (2, [[0.696145, 0.303855], [0.557003, 0.442997], [0.236676, 0.763324]]),
        (3, [[0.699008, 0.300992], [0.560348, 0.439652], [0.239136, 0.760864]]),
        (200, [[0.699504, 0.300496], [0.560930, 0.439070], [0.239566, 0.760434]]),
    ],
)
def test_swav_toy_1(iterations: int, expected: list[list[float]]) -> None:
    codes = sinkhorn(THREE, epsilon=0.5, iterations=iterations)
    assert close(codes, expected)
    if iterations == 3:
        assert codes.mean(0).tolist() == pytest.approx([0.499497, 0.500503], abs=1e-6)


def test_swav_toy_2() -> None:
    expected = [[0.997543, 0.002457], [0.501610, 0.498390], [0.000001, 0.999999]]
    assert close(sinkhorn(THREE, epsilon=0.05, iterations=3), expected)


def test_swav_toy_4_masses_are_not_yet_equal_after_three_iterations() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (6, 3)))
    codes = sinkhorn(scores)
    assert codes.sum(1).tolist() == pytest.approx([1] * 6, abs=1e-12)
    assert codes.sum(0).tolist() == pytest.approx([2.710707, 2.189655, 1.099638], abs=1e-6)


def test_swav_toy_5_constant_features_and_the_identity() -> None:
    same = torch.tensor([[0.3, -0.2, 0.9]], dtype=torch.float64).repeat(4, 1)
    assert close(sinkhorn(same), [[1 / 3] * 3] * 4, 1e-12)
    codes = sinkhorn(torch.eye(2, dtype=torch.float64), epsilon=0.5)
    assert close(codes, [[0.880797, 0.119203], [0.119203, 0.880797]])


matrices = st.integers(2, 6).flatmap(
    lambda k: st.lists(
        st.lists(st.floats(-1, 1, width=32), min_size=k, max_size=k), min_size=1, max_size=7
    )
)


@settings(deadline=None, max_examples=60)
@given(scores=matrices, iterations=st.integers(1, 4), epsilon=st.sampled_from([0.05, 0.3, 1.0]))
def test_equals_the_slow_reference_and_rows_sum_to_one(
    scores: list[list[float]], iterations: int, epsilon: float
) -> None:
    codes = sinkhorn(torch.tensor(scores, dtype=torch.float64), None, epsilon, iterations)
    assert close(codes, by_hand(scores, epsilon, iterations), 1e-9)
    assert torch.allclose(codes.sum(1), torch.ones(len(scores), dtype=torch.float64))


def test_a_constant_for_each_prototype_changes_nothing_one_for_each_sample_does() -> None:
    scores = torch.from_numpy(np.random.default_rng(3).uniform(-1, 1, (8, 4)))
    codes = sinkhorn(scores)
    assert torch.allclose(sinkhorn(scores + torch.tensor([0.3, -0.7, 0.1, 0.9])), codes)
    shift = torch.linspace(-1, 1, 8, dtype=torch.float64).unsqueeze(1)
    assert not torch.allclose(sinkhorn(scores + shift), codes, atol=1e-3)
    converged = (sinkhorn(x, iterations=3000) for x in (scores, scores + shift))
    assert torch.allclose(*converged, atol=1e-6)


def test_permuting_samples_permutes_codes() -> None:
    scores = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(sinkhorn(scores[order]), sinkhorn(scores)[order])


def test_support_rows_take_part_and_get_no_code() -> None:
    scores = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alone = sinkhorn(scores[:3], epsilon=0.5)
    beside = sinkhorn(scores[:3], scores[3:], epsilon=0.5)
    assert torch.allclose(beside, sinkhorn(scores, epsilon=0.5)[:3])
    assert beside.shape == (3, 4)
    assert not torch.allclose(beside, alone, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_finite_in_half_precision_and_with_huge_scores(dtype: torch.dtype, size: float) -> None:
    make = torch.Generator().manual_seed(0)
    scores = (torch.rand(64, 16, generator=make) * 2 - 1).mul(size).to(dtype)
    scores[0], scores[1] = size, -size
    codes = sinkhorn(scores, epsilon=0.05)
    assert codes.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    assert codes.isfinite().all()
    assert torch.allclose(codes.sum(1), torch.ones(64, dtype=codes.dtype), atol=1e-5)


def in_logarithms(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """The same scaling with nothing but logarithms, where no number can leave its range."""

    def mass(values: list[float]) -> float:
        top = max(values)
        return top + math.log(sum(math.exp(value - top) for value in values))

    table = [[value / epsilon for value in row] for row in scores]
    for _ in range(iterations):
        columns = [mass(list(column)) for column in zip(*table, strict=True)]
        table = [[v - c for v, c in zip(row, columns, strict=True)] for row in table]
        table = [[v - mass(row) for v in row] for row in table]
    return [[math.exp(value) for value in row] for row in table]


@settings(deadline=None, max_examples=60)
@given(
    scores=matrices,
    size=st.sampled_from([1.0, 40.0, 1e3, 1e4]),
    iterations=st.integers(1, 4),
    block=st.sampled_from([1, 7, 1 << 20]),
    group=st.sampled_from([1, 2, 3, 16]),
)
def test_huge_scores_have_the_codes_that_logarithms_give(
    scores: list[list[float]], size: float, iterations: int, block: int, group: int
) -> None:
    """Columns that all rows avoid and rows far below all others keep their codes."""
    large = torch.tensor(scores, dtype=torch.float64) * size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "GROUP", group)
        codes = sinkhorn(large, None, 0.05, iterations)
    assert close(codes, in_logarithms(large.tolist(), 0.05, iterations), 1e-8)


def test_whole_rows_and_columns_that_underflow_are_not_lost() -> None:
    scores = torch.zeros(4, 3)
    scores[1] = -500  # below all others by e^-10000
    scores[:, 2] = -300
    codes = sinkhorn(scores)
    expected = in_logarithms(scores.tolist(), 0.05, 3)
    assert close(codes, expected, 1e-6)
    assert codes[1].tolist() == pytest.approx([0, 0, 1], abs=1e-6)


def test_any_number_of_iterations_stays_finite() -> None:
    make = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 7, generator=make) * 30
    codes = sinkhorn(scores, iterations=500)
    assert codes.isfinite().all()
    assert torch.allclose(codes.sum(1), torch.ones(50), atol=1e-5)


@pytest.mark.parametrize("block", [15, 1 << 20])
def test_threads_share_blocks_out_without_changing_codes(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Of 13 rows two threads have six each and one has the last, or it has them all."""
    monkeypatch.setattr(module, "BLOCK", block)
    scores = torch.randn(13, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected, threads = in_logarithms(scores.tolist(), 0.05, 3), torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert close(sinkhorn(scores), expected, 1e-12)
    finally:
        torch.set_num_threads(threads)


def test_scores_may_lie_in_memory_in_any_way_and_are_left_as_they_are() -> None:
    scores = torch.randn(5, 9, generator=torch.Generator().manual_seed(1)).T
    before = scores.clone()
    assert torch.allclose(sinkhorn(scores), sinkhorn(before.contiguous()))
    assert torch.equal(scores, before)


def test_no_gradient_passes() -> None:
    assert not sinkhorn(THREE.clone().requires_grad_()).requires_grad
