from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import coview
from coview import Batch, Encoded, Negatives, Plan, Step, Targets, Views

ROWS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
FEATURE = torch.tensor([[0.6, 0.8]], dtype=torch.float64)


def nce(images: int, **chosen: Any) -> Any:
    return coview.component("losses", "nce", plan=Plan(dataset_size=images), **chosen)


def softmax(**chosen: Any) -> Any:
    return coview.component("losses", "non-parametric-softmax", **chosen)


def records(
    queries: Tensor, keys: Tensor, noise: Tensor
) -> tuple[Encoded, Targets, tuple[Negatives, ...]]:
    own = torch.arange(len(queries))
    encoded = Encoded({0: queries}, {0: queries}, {0: own}, ((0, 0),), {})
    return encoded, Targets({0: keys}, {0: own}), (Negatives({0: noise}, {0: None}),)


def random_records(rows: int, count: int, dim: int, seed: int = 0) -> Any:
    make = torch.Generator().manual_seed(seed)
    return records(
        torch.randn(rows, dim, generator=make, dtype=torch.float64),
        torch.randn(rows, dim, generator=make, dtype=torch.float64),
        torch.randn(rows, count, dim, generator=make, dtype=torch.float64),
    )


def slow_nce(
    encoded: Encoded, targets: Targets, noise: Tensor, tau: float, images: int, z: float | None
) -> tuple[float, float]:
    """Equations 4 to 8 with probabilities written out; returns the loss and Z."""

    def e(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return math.exp(dot / (math.hypot(*a) * math.hypot(*b)) / tau)

    table = []
    for row, query in enumerate(encoded.queries[0].tolist()):
        candidates = [targets.keys[0][row].tolist(), *noise[row].tolist()]
        table.append([e(query, candidate) for candidate in candidates])
    entries = [value for row in table for value in row]
    z = sum(entries) / len(entries) * images if z is None else z
    total = 0.0
    for row in table:
        m = len(row) - 1
        posterior = [value / z / (value / z + m / images) for value in row]
        total -= math.log(posterior[0]) + sum(math.log(1 - h) for h in posterior[1:])
    return total / len(table), z


@pytest.mark.parametrize("tau", [0.2, 0.7])
def test_equals_the_formula_and_keeps_its_normaliser(tau: float) -> None:
    loss = nce(50, temperature=tau)
    z: float | None = None
    for seed in range(3):
        given = random_records(4, 6, 5, seed)
        expected, z = slow_nce(given[0], given[1], given[2][0].vectors[0], tau, 50, z)
        assert loss.compute_loss(*given, Step()).item() == pytest.approx(expected, abs=1e-9)
        assert loss.normalizer.tolist() == pytest.approx([z], rel=1e-12)


def test_the_worked_example() -> None:
    query = FEATURE.clone().requires_grad_()
    loss = nce(4, temperature=0.5)
    value = loss.compute_loss(*records(query, ROWS[:1], ROWS[None, [1, 2]]), Step())
    assert value.item() == pytest.approx(1.676662, abs=1e-6)
    assert loss.normalizer.item() == pytest.approx(11.432458, abs=1e-6)
    value.backward()
    # The sheet's gradient is of unit queries; through the unit length, only
    # the part across the query is left.
    raw = torch.tensor([-1.365271, 0.928468], dtype=torch.float64)
    across = raw - (raw @ FEATURE[0]) * FEATURE[0]
    assert query.grad is not None
    assert query.grad[0].tolist() == pytest.approx(across.tolist(), abs=1e-5)


@pytest.mark.parametrize("m, expected", [(1, 1.386294), (10, 3.350997), (4096, 9.317888)])
def test_equal_similarities_on_the_first_batch(m: int, expected: float) -> None:
    same = torch.ones(2, 3, dtype=torch.float64)
    value = nce(777).compute_loss(*records(same, same, same[:1].expand(2, m, 3)), Step())
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("tau, expected, z", [(0.07, 10.115, 2.2193), (0.1, 9.708, 1.4779)])
def test_random_vectors_on_the_first_batch(tau: float, expected: float, z: float) -> None:
    """About log m + 1 + 1 / (2 d tau^2), and Z about n exp(1 / (2 d tau^2))."""
    loss = nce(50_000, temperature=tau)
    make = torch.Generator().manual_seed(0)
    given = records(
        torch.randn(64, 128, generator=make),
        torch.randn(64, 128, generator=make),
        torch.randn(64, 4096, 128, generator=make),
    )
    assert loss.compute_loss(*given, Step()).item() == pytest.approx(expected, abs=0.15)
    assert loss.normalizer.item() / 50_000 == pytest.approx(z, rel=0.02)


def test_the_normaliser_is_restored() -> None:
    first, second, later = random_records(4, 6, 5), random_records(4, 6, 5, 1), nce(50)
    loss = nce(50)
    loss.compute_loss(*first, Step())
    expected = loss.compute_loss(*second, Step()).item()
    fresh = nce(50).compute_loss(*second, Step()).item()
    later.load_state_dict(loss.state_dict())
    assert "normalizer" in loss.state_dict()
    assert later.compute_loss(*second, Step()).item() == expected != fresh


def test_the_normaliser_takes_no_gradient() -> None:
    """With Z held, the gradient is the formula's: -(1 - h0) v0 + sum h v, over tau."""
    encoded, targets, negatives = random_records(3, 4, 5)
    query = torch.nn.functional.normalize(encoded.queries[0]).requires_grad_()
    noise = negatives[0].vectors[0]
    loss = nce(20, temperature=0.5)
    loss.compute_loss(*records(query, targets.keys[0], noise), Step()).backward()
    z = loss.normalizer.item()
    for row in range(3):
        rows = torch.cat([targets.keys[0][row : row + 1], noise[row]])
        rows = rows / rows.norm(dim=1, keepdim=True)
        e = (rows @ query[row].detach() / 0.5).exp() / z
        h = e / (e + 4 / 20)
        h[0] -= 1
        raw = (h[:, None] * rows).sum(0) / 0.5 / 3
        across = raw - (raw @ query[row].detach()) * query[row].detach()
        assert query.grad is not None
        assert query.grad[row].tolist() == pytest.approx(across.tolist(), abs=1e-9)


def test_one_normaliser_for_each_pair_of_views() -> None:
    layout = coview.Layout(((8, 8),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))
    plan = Plan(dataset_size=30, layout=layout)
    loss = coview.component("losses", "nce", plan=plan, temperature=0.5)
    parts = [random_records(4, 6, 5, seed) for seed in (0, 1)]
    own = torch.arange(4)
    encoded = Encoded(
        {0: parts[0][0].queries[0], 1: parts[1][0].queries[0]},
        {},
        {0: own, 1: own},
        layout.pairs,
        {},
    )
    targets = Targets({1: parts[0][1].keys[0], 0: parts[1][1].keys[0]}, {})
    vectors = {1: parts[0][2][0].vectors[0], 0: parts[1][2][0].vectors[0]}
    value = loss.compute_loss(
        encoded, targets, (Negatives(vectors, dict.fromkeys(vectors)),), Step()
    )
    slow = [slow_nce(p[0], p[1], p[2][0].vectors[0], 0.5, 30, None) for p in parts]
    assert value.item() == pytest.approx(slow[0][0] + slow[1][0], abs=1e-9)
    assert loss.normalizer.tolist() == pytest.approx([slow[0][1], slow[1][1]])


@pytest.mark.parametrize("make", [lambda: nce(40), softmax])
def test_neither_order_nor_length_of_candidates_counts(make: Any) -> None:
    encoded, targets, negatives = random_records(4, 6, 5)
    noise = negatives[0].vectors[0]
    plain = make().compute_loss(encoded, targets, negatives, Step()).item()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    changed = records(encoded.queries[0] * 7, targets.keys[0] * 0.2, 3 * noise[:, order])
    assert make().compute_loss(*changed, Step()).item() == pytest.approx(plain, abs=1e-9)


def test_the_full_softmax_is_exact() -> None:
    """All four rows, the positive among them once: equation 2."""
    plan = Plan(dataset_size=4, dim=2)
    bank = coview.component("targets", "memory-bank", plan=plan, draws=0).double()
    bank.rows.copy_(ROWS)
    query = FEATURE.clone().requires_grad_()
    batch = Batch(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor([0]))
    views = Views((), (0,), (0,), ((0, 0),))
    targets = bank.encode_targets(views, batch)
    drawn = bank.draw_negatives(targets, batch, Step())
    encoded = Encoded({0: query}, {0: query}, {0: batch.indices}, ((0, 0),), {})
    value = softmax(temperature=0.5).compute_loss(encoded, targets, (drawn,), Step())
    assert value.item() == pytest.approx(0.972048, abs=1e-6)
    assert math.exp(-value.item()) == pytest.approx(0.378307, abs=1e-6)
    value.backward()
    assert query.grad is not None and query.grad.abs().sum() > 0
    assert bank.rows.grad is None and not bank.rows.requires_grad


def test_the_full_softmax_of_any_bank() -> None:
    make = torch.Generator().manual_seed(5)
    plan = Plan(dataset_size=9, dim=3)
    bank = coview.component("targets", "memory-bank", plan=plan, draws=0).double()
    queries = torch.randn(3, 3, generator=make, dtype=torch.float64)
    batch = Batch(torch.zeros(3, 3, 2, 2, dtype=torch.uint8), torch.tensor([7, 0, 4]))
    targets = bank.encode_targets(Views((), (0,), (0,), ((0, 0),)), batch)
    drawn = bank.draw_negatives(targets, batch, Step())
    encoded = Encoded({0: queries}, {}, {0: batch.indices}, ((0, 0),), {})
    value = softmax(temperature=0.1).compute_loss(encoded, targets, (drawn,), Step())
    total = 0.0
    for query, image in zip(queries.tolist(), [7, 0, 4], strict=True):
        scores = []
        for row in bank.rows.tolist():
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            scores.append(dot / math.hypot(*query) / math.hypot(*row) / 0.1)
        total += math.log(sum(map(math.exp, scores))) - scores[image]
    assert value.item() == pytest.approx(total / 3, abs=1e-9)


def test_the_softmax_at_the_start() -> None:
    """log n and the spread's 1 / (2 d tau^2), with a fresh bank."""
    n, d, tau = 4096, 128, 0.2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bank = coview.component("targets", "memory-bank", plan=Plan(dataset_size=n, dim=d), draws=0)
    batch = Batch(torch.zeros(256, 3, 1, 1, dtype=torch.uint8), torch.arange(256))
    targets = bank.encode_targets(Views((), (0,), (0,), ((0, 0),)), batch)
    drawn = bank.draw_negatives(targets, batch, Step())
    queries = torch.randn(256, d, generator=torch.Generator().manual_seed(1))
    encoded = Encoded({0: queries}, {}, {0: batch.indices}, ((0, 0),), {})
    value = softmax(temperature=tau).compute_loss(encoded, targets, (drawn,), Step())
    assert value.item() == pytest.approx(math.log(n) + 1 / (2 * d * tau**2), abs=0.07)


def test_a_noise_density_needs_the_number_of_images() -> None:
    with pytest.raises(coview.RequestError, match="needs a plan with dataset_size"):
        coview.component("losses", "nce")
