"""The loss against a slow one written from the paper's pseudo-code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import coview
from coview import Encoded, Negatives, Step, Targets

BOTH = ((0, 1), (1, 0))
ROWS, WIDTH = 5, 4


def random(seed: int = 0) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return predictions and neighbours of two views."""
    make = torch.Generator().manual_seed(seed)
    p, n = torch.randn(2, 2, ROWS, WIDTH, generator=make, dtype=torch.float64)
    return {0: p[0], 1: p[1]}, {0: n[0], 1: n[1]}


def value(
    predictions: dict[int, Tensor], keys: dict[int, Tensor], pairs: Any = BOTH, **chosen: Any
) -> Tensor:
    own = {slot: torch.arange(len(z)) for slot, z in predictions.items()}
    loss: Tensor = coview.component("losses", "nnclr", **chosen).compute_loss(
        Encoded(predictions, predictions, own, pairs, {}),
        Targets(keys, {slot: own[slot] for slot in keys}),
        Step(),
    )
    return loss


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))


def slow(prediction: Tensor, key: Tensor, temperature: float) -> float:
    """Mean over keys of -log softmax of the prediction of the same row, among all predictions."""
    p, n = prediction.tolist(), key.tolist()
    total = 0.0
    for i, row in enumerate(n):
        exponentials = [math.exp(cosine(row, other) / temperature) for other in p]
        total -= math.log(exponentials[i] / sum(exponentials))
    return total / len(n)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_equals_the_pseudo_code(temperature: float) -> None:
    p, n = random()
    expected = (slow(p[1], n[0], temperature) + slow(p[0], n[1], temperature)) / 2
    seen = value(p, n, temperature=temperature).item()
    assert seen == pytest.approx(expected, rel=1e-9)
    one = value(p, n, ((1, 0),), temperature=temperature).item()
    assert one == pytest.approx(slow(p[1], n[0], temperature), rel=1e-9)


def test_a_worked_example() -> None:
    """Neighbours along the axes; the second prediction is on both their middles."""
    n = {0: torch.eye(2, dtype=torch.float64)}
    p = {1: torch.tensor([[2.0, 0], [3, 3]], dtype=torch.float64)}
    half = math.sqrt(0.5)
    first = -math.log(math.exp(1) / (math.exp(1) + math.exp(half)))
    second = -math.log(math.exp(half) / (1 + math.exp(half)))
    own = torch.arange(2)
    seen = coview.component("losses", "nnclr", temperature=1.0).compute_loss(
        Encoded(p, p, {1: own}, ((1, 0),), {}), Targets(n, {0: own}), Step()
    )
    assert seen.item() == pytest.approx((first + second) / 2, abs=1e-12)


def test_the_other_direction_is_info_nce() -> None:
    """The text's second term: each key exchanged with its prediction."""
    p, n = random()
    own = torch.arange(ROWS)
    ids = {0: own, 1: own}
    negatives = Negatives(n, {0: own, 1: own})
    turned = coview.component("losses", "info-nce", temperature=0.1).compute_loss(
        Encoded(p, p, ids, BOTH, {}), Targets(n, ids), (negatives,), Step()
    )
    expected = (slow(n[0], p[1], 0.1) + slow(n[1], p[0], 0.1)) / 2
    assert turned.item() == pytest.approx(expected, rel=1e-9)
    assert turned.item() != pytest.approx(value(p, n).item(), rel=1e-3)


def test_its_gradient_reaches_every_prediction() -> None:
    p, n = random(1)
    leaves = [p[0].requires_grad_(), p[1].requires_grad_()]
    ours = torch.autograd.grad(value(p, n, temperature=0.5), leaves)
    for slot in (0, 1):
        for i in range(ROWS):
            for j in range(WIDTH):
                up, down = ({s: z.detach().clone() for s, z in p.items()} for _ in range(2))
                up[slot][i, j] += 1e-6
                down[slot][i, j] -= 1e-6
                slope = value(up, n, temperature=0.5) - value(down, n, temperature=0.5)
                assert ours[slot][i, j].item() == pytest.approx(slope.item() / 2e-6, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-2, 1e2), st.floats(1e-2, 1e2), st.permutations(range(ROWS)))
def test_neither_length_nor_order_counts(ours: float, theirs: float, order: list[int]) -> None:
    p, n = random(2)
    plain = value(p, n).item()
    moved = [{s: scale * z[order] for s, z in x.items()} for x, scale in ((p, ours), (n, theirs))]
    assert value(*moved).item() == pytest.approx(plain, rel=1e-9)


def test_constant_predictions_cost_the_logarithm_of_the_batch() -> None:
    same = {s: torch.ones(ROWS, WIDTH, dtype=torch.float64) for s in (0, 1)}
    assert value(same, random()[1]).item() == pytest.approx(math.log(ROWS), abs=1e-9)


def test_it_says_what_keeps_it_from_collapse() -> None:
    (guard,) = coview.component("losses", "nnclr").guards()
    assert guard.on
