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


def loss_of(**chosen: Any) -> Any:
    return coview.component("losses", "info-nce", **chosen)


def records(
    queries: Tensor, keys: Tensor, vectors: Tensor, whose: Tensor | None = None
) -> tuple[Encoded, Targets, tuple[Negatives, ...]]:
    own = torch.arange(len(queries))
    encoded = Encoded({0: queries}, {0: queries}, {0: own}, ((0, 0),), {})
    return encoded, Targets({0: keys}, {0: own}), (Negatives({0: vectors}, {0: whose}),)


def double(rows: list[Any]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def slow(
    queries: Tensor,
    keys: Tensor,
    parts: list[tuple[Tensor, Tensor | None]],
    temperature: float,
    cosine: bool,
) -> float:
    """Equation 4, a query and a candidate at a time; identities are row numbers."""

    def score(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        if cosine:
            dot /= math.hypot(*a) * math.hypot(*b)
        return dot / temperature

    total = 0.0
    for row, query in enumerate(queries.tolist()):
        true = score(query, keys[row].tolist())
        whole = math.exp(true)
        for vectors, whose in parts:
            mine = vectors if vectors.ndim == 2 else vectors[row]
            names = None if whose is None else (whose if whose.ndim == 1 else whose[row])
            for number, vector in enumerate(mine.tolist()):
                if names is None or int(names[number]) != row:
                    whole += math.exp(score(query, vector))
        total += math.log(whole) - true
    return total / len(queries)


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("per_query", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_equals_the_formula(cosine: bool, per_query: bool, named: bool) -> None:
    make = torch.Generator().manual_seed(1)
    queries = torch.randn(5, 3, generator=make, dtype=torch.float64)
    keys = torch.randn(5, 3, generator=make, dtype=torch.float64)
    shape = (5, 7, 3) if per_query else (7, 3)
    vectors = torch.randn(shape, generator=make, dtype=torch.float64)
    whose = torch.randint(0, 8, shape[:-1], generator=make) if named else None
    encoded, targets, negatives = records(queries, keys, vectors, whose)
    loss = loss_of(temperature=0.3, cosine=cosine).compute_loss(encoded, targets, negatives, Step())
    assert loss.dtype == torch.float64 and loss.ndim == 0
    expected = slow(queries, keys, [(vectors, whose)], 0.3, cosine)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_takes_several_sources_and_pairs() -> None:
    make = torch.Generator().manual_seed(2)
    q = {s: torch.randn(4, 3, generator=make, dtype=torch.float64) for s in (0, 1)}
    k = {s: torch.randn(4, 3, generator=make, dtype=torch.float64) for s in (2, 3)}
    own = torch.arange(4)
    first = {s: torch.randn(6, 3, generator=make, dtype=torch.float64) for s in (2, 3)}
    second = {s: torch.randn(4, 2, 3, generator=make, dtype=torch.float64) for s in (2, 3)}
    whose = torch.tensor([0, 1, 2, 3, 0, 9])
    pairs = ((0, 2), (0, 3), (1, 3))
    encoded = Encoded(q, q, dict.fromkeys(q, own), pairs, {})
    targets = Targets(k, dict.fromkeys(k, own))
    negatives = (Negatives(first, dict.fromkeys(k, whose)), Negatives(second, dict.fromkeys(k)))
    terms = [slow(q[a], k[b], [(first[b], whose), (second[b], None)], 0.1, True) for a, b in pairs]
    for reduction, expected in (("mean", sum(terms) / 3), ("sum", sum(terms))):
        loss = loss_of(reduction=reduction).compute_loss(encoded, targets, negatives, Step())
        assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "matrix, expected",
    [
        ([[2, 0], [0, 1]], 0.326563),
        ([[0, 1], [1, 0]], 0.758624),
        ([[1, 2], [0, 1]], 0.129109),
    ],
)
def test_a_log_bilinear_critic(matrix: list[list[float]], expected: float) -> None:
    """CPC's form: the prediction W c is the query, compared by dot product."""
    prediction = double(matrix) @ double([1, 1])
    given_ = records(prediction[None], double([[1, 0]]), double([[0, 1], [-1, 0]]))
    loss = loss_of(temperature=1, cosine=False).compute_loss(*given_, Step())
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_bounds_mutual_information() -> None:
    """log N - loss never exceeds log N: the loss is never negative."""
    given_ = records(double([[2, 1]]), double([[1, 0]]), double([[0, 1], [-1, 0]]))
    loss = loss_of(temperature=1, cosine=False).compute_loss(*given_, Step())
    assert math.log(3) - loss.item() == pytest.approx(0.772050, abs=1e-6)


@pytest.mark.parametrize("count, expected", [(16, 2.772589), (17, 2.833213), (784, 6.664409)])
def test_a_zero_critic_costs_log_n(count: int, expected: float) -> None:
    given_ = records(torch.zeros(1, 4).double(), torch.ones(1, 4), torch.randn(count - 1, 4))
    loss = loss_of(temperature=1, cosine=False).compute_loss(*given_, Step())
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "tau, expected, first, gradient",
    [
        (0.07, 0.055854, 0.945677, (-0.155297, 0.155238)),
        (0.2, 0.326652, 0.721335, (-0.319012, 0.291521)),
        (1.0, 0.889272, None, None),
    ],
)
def test_one_query_and_three_negatives(
    tau: float, expected: float, first: float | None, gradient: tuple[float, float] | None
) -> None:
    query = double([[1, 0]]).requires_grad_()
    given_ = records(query, double([[0.8, 0.6]]), double([[0, 1], [-1, 0], [0.6, 0.8]]))
    loss = loss_of(temperature=tau, cosine=False).compute_loss(*given_, Step())
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    by_cosine = loss_of(temperature=tau).compute_loss(*given_, Step())
    assert by_cosine.item() == pytest.approx(loss.item(), abs=1e-12)
    if first is not None:
        loss.backward()
        assert math.exp(-loss.item()) == pytest.approx(first, abs=1e-6)
        assert query.grad is not None
        assert query.grad[0].tolist() == pytest.approx(gradient, abs=1e-6)


@pytest.mark.parametrize("tau", [0.07, 0.1, 0.2, 0.5])
def test_random_vectors_cost_log_k_and_a_little(tau: float) -> None:
    """Similarities of variance 1 / d add 1 / (2 d tau^2) to log K."""
    make = torch.Generator().manual_seed(3)
    d, count = 128, 4096
    given_ = records(
        torch.randn(512, d, generator=make),
        torch.randn(512, d, generator=make),
        torch.randn(count, d, generator=make),
    )
    loss = loss_of(temperature=tau).compute_loss(*given_, Step())
    expected = math.log(count + 1) + 1 / (2 * d * tau**2)
    assert loss.item() == pytest.approx(expected, abs=0.1 if tau < 0.2 else 0.03)
    if tau == 0.07:  # the correction itself is seen, not only log K
        assert loss.item() > math.log(count + 1) + 0.6


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_neither_order_nor_length_counts(order: list[int], ours: float, theirs: float) -> None:
    make = torch.Generator().manual_seed(4)
    q, k = torch.randn(2, 3, 4, generator=make, dtype=torch.float64)
    vectors = torch.randn(6, 4, generator=make, dtype=torch.float64)
    whose = torch.tensor([0, 1, 2, 7, 8, 9])
    loss = loss_of()
    plain = loss.compute_loss(*records(q, k, vectors, whose), Step())
    changed = records(q * ours, k * theirs, vectors[order] * theirs, whose[order])
    assert loss.compute_loss(*changed, Step()).item() == pytest.approx(plain.item(), abs=1e-9)


def test_rows_said_to_be_normalised_are_taken_at_their_word() -> None:
    encoded, targets, _ = records(double([[1, 0]]), double([[0, 1]]), double([[3, 4]]))
    long = double([[3, 4]])
    plain = (Negatives({0: long}, {0: None}),)
    claimed = (Negatives({0: long}, {0: None}, normalized=True),)
    loss = loss_of(temperature=1)
    assert loss.compute_loss(encoded, targets, plain, Step()).item() == pytest.approx(
        math.log(1 + math.exp(0.6))
    )
    assert loss.compute_loss(encoded, targets, claimed, Step()).item() == pytest.approx(
        math.log(1 + math.exp(3.0))
    )


def test_a_query_is_not_told_from_itself() -> None:
    """Candidates that are all the query's own leave nothing to pay for."""
    query = double([[1, 0]])
    given_ = records(query, query, double([[1, 0], [0, 1]]), torch.tensor([0, 0]))
    assert loss_of().compute_loss(*given_, Step()).item() == pytest.approx(0.0, abs=1e-12)


def test_the_temperature_may_follow_a_schedule() -> None:
    given_ = records(double([[1, 0]]), double([[0.8, 0.6]]), double([[0, 1]]))
    moving = loss_of(temperature=coview.linear(0.1, 0.5))
    for number, tau in ((0, 0.1), (1, 0.2), (4, 0.5)):
        fixed = loss_of(temperature=tau).compute_loss(*given_, Step())
        loss = moving.compute_loss(*given_, Step(number=number, total_steps=4))
        assert loss.item() == pytest.approx(fixed.item(), abs=1e-12)


def test_the_loss_may_be_scaled_by_twice_its_temperature() -> None:
    given_ = records(double([[1, 0]]), double([[0.8, 0.6]]), double([[0, 1]]))
    for tau in (0.2, 0.5):
        plain = loss_of(temperature=tau).compute_loss(*given_, Step())
        scaled = loss_of(temperature=tau, scale="2-temperature").compute_loss(*given_, Step())
        assert scaled.item() == pytest.approx(2 * tau * plain.item(), abs=1e-12)


def test_wrong_settings_are_refused_together() -> None:
    with pytest.raises(coview.RequestError, match="temperature") as error:
        loss_of(temperature=0, reduction="total")
    assert "reduction" in str(error.value)
