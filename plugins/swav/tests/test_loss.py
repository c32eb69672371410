"""Swapped prediction against worked numbers and a slow reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coview
from coview import Encoded, Layout, Negatives, Plan, Step, Targets
from coview_swav.encoder import Prototypes
from coview_swav.sinkhorn import sinkhorn

DOUBLE = torch.float64


class Scorer(nn.Module):
    """What the loss asks of an encoder: scores by given prototypes."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.predictor = Prototypes(rows.shape[1], len(rows)).to(rows.dtype)
        self.predictor.weight.data = rows.clone()

    def predict(self, projections: dict[int, Tensor]) -> dict[int, Tensor]:
        return {slot: self.predictor(rows) for slot, rows in projections.items()}


Z1 = torch.tensor([[1, 0], [0, 1]], dtype=DOUBLE)
Z2 = torch.tensor([[0.8, 0.6], [0.6, 0.8]], dtype=DOUBLE)
C = torch.tensor([[1, 0], [0, 1], [-1, 0]], dtype=DOUBLE)


def records(scorer: Scorer, *rows: Tensor) -> tuple[Encoded, Targets]:
    projections = dict(enumerate(rows))
    own = dict.fromkeys(projections, torch.arange(len(rows[0])))
    pairs = tuple((q, k) for q in projections for k in (0, 1) if q != k)
    encoded = Encoded(scorer.predict(projections), projections, own, pairs, {})
    return encoded, Targets({k: projections[k] for k in (0, 1)}, own)


def loss(scorer: Scorer, encoded: Encoded, targets: Targets, *parts: Negatives, **chosen: Any):
    made = coview.component("losses", "swapped-prediction", **chosen)
    return made.compute_loss(scorer, encoded, targets, parts, Step())


@pytest.mark.parametrize("epsilon, expected", [(0.05, 3.478334), (0.5, 6.236796)])
def test_swav_toy_3(epsilon: float, expected: float) -> None:
    scorer = Scorer(C)
    assert loss(scorer, *records(scorer, Z1, Z2), epsilon=epsilon).item() == pytest.approx(
        expected, abs=1e-6
    )
    total = loss(scorer, *records(scorer, Z1, Z2), epsilon=epsilon, reduction="sum")
    assert total.item() == pytest.approx(2 * expected, abs=2e-6)


def test_swav_toy_3_codes() -> None:
    one = sinkhorn(Z1 @ C.T)
    two = sinkhorn(Z2 @ C.T)
    assert torch.allclose(one, torch.tensor([[1, 0, 0], [0, 0.5, 0.5]], dtype=DOUBLE), atol=1e-6)
    expected = [[0.890282, 0.054859, 0.054859], [0.002715, 0.498643, 0.498643]]
    assert torch.allclose(two, torch.tensor(expected, dtype=DOUBLE), atol=1e-6)


def test_four_views_two_keys_and_a_support_queue_by_slow_loops() -> None:
    make = torch.Generator().manual_seed(4)
    rows = [torch.randn(5, 3, generator=make, dtype=DOUBLE) for _ in range(4)]
    prototypes = torch.nn.functional.normalize(torch.randn(6, 3, generator=make, dtype=DOUBLE))
    queue = {k: torch.randn(7, 3, generator=make, dtype=DOUBLE) for k in (0, 1)}
    scorer = Scorer(prototypes)
    support = Negatives(queue, {0: None, 1: None})
    found = loss(scorer, *records(scorer, *rows), support, temperature=0.3, epsilon=0.4)

    def score(z: Tensor) -> list[float]:
        return [float(z @ c) / float(z.norm()) for c in prototypes]

    total, terms = 0.0, 0
    for key in (0, 1):
        together = [score(z) for z in queue[key]] + [score(z) for z in rows[key]]
        q = [[math.exp(s / 0.4) for s in row] for row in together]
        for _ in range(3):
            for k in range(6):
                mass = sum(row[k] for row in q)
                for row in q:
                    row[k] /= mass
            q = [[value / sum(row) for value in row] for row in q]
        codes = q[-5:]
        for query in range(4):
            if query == key:
                continue
            terms += 1
            for b in range(5):
                logits = [s / 0.3 for s in score(rows[query][b])]
                normaliser = math.log(sum(map(math.exp, logits)))
                total -= sum(codes[b][k] * (logits[k] - normaliser) for k in range(6)) / 5
    assert terms == 2 * (4 - 1)
    assert found.item() == pytest.approx(total / terms, rel=1e-9)


def test_uniform_prediction_costs_the_logarithm_of_the_prototypes() -> None:
    """The plateau that a collapsed network shows: ln 3000 = 8.006368."""
    scorer = Scorer(torch.nn.functional.normalize(torch.ones(3000, 4, dtype=DOUBLE)))
    rows = torch.randn(4, 4, dtype=DOUBLE)
    assert loss(scorer, *records(scorer, rows, rows)).item() == pytest.approx(8.006368, abs=1e-6)


def test_gradient_reaches_queries_and_prototypes_and_not_the_codes() -> None:
    scorer = Scorer(C)
    live = Z1.clone().requires_grad_()
    encoded, targets = records(scorer, live, Z2)
    # Only view 1 is a query here, so that view 0 is used for its code alone.
    only = Encoded(encoded.queries, encoded.projections, encoded.identities, ((1, 0),), {})
    loss(scorer, only, targets, epsilon=0.5).backward()
    assert live.grad is None
    assert scorer.predictor.weight.grad is not None
    assert scorer.predictor.weight.grad.abs().sum() > 0


def test_negatives_that_queries_do_not_share_are_refused_in_words() -> None:
    scorer, rows = Scorer(C), torch.randn(2, 5, 2, dtype=DOUBLE)
    for_pairs = Negatives({}, {}, by_pair={(0, 1): (rows, None), (1, 0): (rows, None)})
    for_rows = Negatives({0: rows, 1: rows}, {0: None, 1: None})
    for part in (for_pairs, for_rows):
        with pytest.raises(coview.RequestError, match="takes negatives that all queries share"):
            loss(scorer, *records(scorer, Z1, Z2), part)


def test_the_support_queue_is_used_once_full_and_kept_for_each_view() -> None:
    """Length 6, batch 2, constant pushes 1 to 5 from an epoch on (the sheet's toy 6)."""
    layout = Layout(((8, 8),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))
    plan = Plan(batch_size=2, dim=1, layout=layout, steps_per_epoch=2)
    queue = coview.component(
        "negatives", "queue", plan=plan, size=6, per_view=True, from_epoch=1.5, once_full=True
    )
    used = []
    for number in range(3 + 5):
        step = Step(number=number, steps_per_epoch=2, total_steps=16)
        keys = {0: torch.ones(2, 1), 1: -torch.ones(2, 1)}
        targets = Targets(keys, dict.fromkeys(keys, torch.arange(2)))
        part = queue.draw_negatives(targets, step)
        used.append(part is not None)
        if part is not None:
            assert torch.equal(part.vectors[0], torch.ones(6, 1))
            assert torch.equal(part.vectors[1], -torch.ones(6, 1))
        queue.update_target(targets, step)
    assert used == [False] * 3 + [False, False, False, True, True]
