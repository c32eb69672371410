"""The chunked softmax against the formula in slow loops, and against what keeps every tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coview.errors import CoviewError
from coview.losses import similarity as sources
from coview.losses import softmax as chunked
from coview.losses.similarity import Source, candidates, cross_entropy, reduced
from coview.losses.softmax import cross_entropy_in_chunks, softmax_loss
from coview.records import Encoded, Negatives, Targets

DOUBLE = torch.float64


def slow(
    queries: Tensor,
    positives: Tensor,
    weights: Tensor,
    identities: Tensor,
    parts: Sequence[tuple[Tensor, Tensor | None, bool]],
) -> float:
    """The weighted sum of -log softmax, a candidate at a time."""
    total = 0.0
    for row, query in enumerate(queries.tolist()):
        mass = 0.0
        for vectors, names, cosine in parts:
            mine = vectors if vectors.ndim == 2 else vectors[row]
            whose = None if names is None else (names if names.ndim == 1 else names[row]).tolist()
            for number, vector in enumerate(mine.tolist()):
                if whose is None or whose[number] != int(identities[row]):
                    dot = sum(a * b for a, b in zip(query, vector, strict=True))
                    mass += math.exp(dot / (math.hypot(*vector) if cosine else 1))
        for positive, weight in zip(positives[row].tolist(), weights[row].tolist(), strict=True):
            total += weight * (math.log(mass + math.exp(positive)) - positive)
    return total


@st.composite
def cases(draw: st.DrawFn) -> Any:
    """Queries, positives and up to three sources of every kind."""
    make = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    rows, width = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    kinds = draw(st.lists(st.tuples(*[st.booleans()] * 5, st.integers(0, 9)), max_size=3))
    parts = []
    for by_row, named, names_by_row, cosine, live, count in kinds:
        shape = (rows, count, width) if by_row else (count, width)
        vectors = torch.randn(shape, generator=make, dtype=DOUBLE)
        names_shape = (rows, count) if by_row or names_by_row else (count,)
        names = torch.randint(4, names_shape, generator=make) if named else None
        parts.append((vectors, names, cosine and not live, live))
    some = draw(st.integers(1, 3))
    return (
        torch.randn(rows, width, generator=make, dtype=DOUBLE),
        torch.randn(rows, some, generator=make, dtype=DOUBLE),
        torch.rand(rows, some, generator=make, dtype=DOUBLE),
        torch.randint(4, (rows,), generator=make),
        parts,
        draw(st.integers(1, 30)),
        draw(st.integers(1, 9)),
    )


@settings(max_examples=20, deadline=None)
@given(cases())
def test_values_and_gradients_are_the_formula_s_for_any_shapes_and_chunks(case: Any) -> None:
    queries, positives, weights, names, parts, values, rows = case
    inputs = [queries.requires_grad_(), positives.requires_grad_()]
    inputs += [vectors.requires_grad_() for vectors, _, _, live in parts if live]

    def loss(*given: Tensor) -> Tensor:
        vectors = list(given[2:])
        sources = [
            Source(vectors.pop(0) if live else v, whose, cosine) for v, whose, cosine, live in parts
        ]
        return cross_entropy_in_chunks(given[0], given[1], weights, names, sources)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "VALUES", values)
        patch.setattr(chunked, "ROWS", rows)
        expected = slow(queries, positives, weights, names, [part[:3] for part in parts])
        assert loss(*inputs).item() == pytest.approx(expected, abs=1e-9)
        assert torch.autograd.gradcheck(loss, inputs, nondet_tol=0.0)
        with torch.no_grad():
            assert loss(*inputs).item() == pytest.approx(expected, abs=1e-9)


def plain(*records: Any, cosine: bool, temperature: Any, reduction: str) -> Tensor:
    """What plugins of others may use: every similarity kept, and differentiated by torch."""
    pairs = candidates(*records, cosine=cosine)
    return reduced((cross_entropy(p, others, temperature) for p, others in pairs), reduction)


def test_a_learned_temperature_is_not_spoilt_by_what_is_no_negative() -> None:
    """The gradient is that of the candidates that count, as if the others were not there."""
    make = torch.Generator().manual_seed(2)
    positive, others = (torch.rand(shape, generator=make, dtype=DOUBLE) for shape in ((4,), (4, 6)))
    found = []
    for rest in (others, torch.cat([others, torch.full((4, 2), -torch.inf)], dim=1)):
        temperature = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
        cross_entropy(positive, [rest], temperature).backward()
        found.append(temperature.grad)
    torch.testing.assert_close(*found)


def step(seed: int, rows: int = 5, width: int = 3) -> tuple[dict[int, Tensor], Any]:
    """Three views, two of them keys; what is in batch, a queue, and rows of each query's own."""
    make = torch.Generator().manual_seed(seed)
    made = {
        v: torch.randn(rows, width, generator=make, dtype=DOUBLE).requires_grad_() for v in range(3)
    }
    own = torch.randperm(rows, generator=make)
    pairs = ((0, 1), (1, 0), (2, 0), (2, 1))
    whose = dict.fromkeys(made, own)
    queue = torch.randn(11, width, generator=make, dtype=DOUBLE)
    each = torch.randn(rows, 4, width, generator=make, dtype=DOUBLE)
    every = torch.cat([made[0], made[1]])
    keys = {0: made[0], 1: made[1]}
    negatives = (
        Negatives(dict.fromkeys(keys, every), dict.fromkeys(keys, torch.cat([own, own]))),
        Negatives(dict.fromkeys(keys, queue), dict.fromkeys(keys)),
        Negatives(dict.fromkeys(keys, each), dict.fromkeys(keys, own.expand(4, rows).T % 2)),
    )
    return made, (Encoded(made, made, whose, pairs, {}), Targets(keys, whose), negatives)


@pytest.mark.parametrize("sources", [(), (0,), (1,), (2,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_agrees_with_what_keeps_every_tensor(
    sources: tuple[int, ...], cosine: bool, reduction: str
) -> None:
    def of(loss: Any, tau: Any, *wanted: Tensor) -> list[Tensor]:
        made, (encoded, targets, negatives) = step(3)
        parts = tuple(negatives[n] for n in sources)
        value = loss(encoded, targets, parts, cosine=cosine, temperature=tau, reduction=reduction)
        wanted = (*made.values(), *wanted)
        return [value.detach(), *torch.autograd.grad(value, wanted, materialize_grads=True)]

    tau = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
    *ours, to_tau = of(softmax_loss, tau, tau)
    for our, their in zip(ours, of(plain, 0.3), strict=True):
        torch.testing.assert_close(our, their, atol=1e-12, rtol=1e-9)
    # By differences: dividing -inf, a plain loss has no gradient for the temperature.
    above, below = (of(plain, 0.3 + h)[0].item() for h in (1e-5, -1e-5))
    assert to_tau.item() == pytest.approx((above - below) / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("loss", [softmax_loss, plain])
def test_negatives_by_pair_take_the_place_of_their_key_slots(loss: Any, by_row: bool) -> None:
    """The sum over pairs is that of each pair alone with negatives of its own."""
    make = torch.Generator().manual_seed(4)
    made, (encoded, targets, negatives) = step(1)
    shape = (5, 4, 3) if by_row else (4, 3)
    own = {
        pair: (torch.randn(shape, generator=make, dtype=DOUBLE).requires_grad_(), None)
        for pair in encoded.pairs[1:]
    }
    how: dict[str, Any] = {"cosine": True, "temperature": 0.3, "reduction": "sum"}
    many = attrs.evolve(negatives[1], by_pair=own)
    together = loss(encoded, targets, (negatives[0], many), **how)
    alone = []
    for query, key in encoded.pairs:
        vectors, names = own.get((query, key), (negatives[1].vectors[key], None))
        part = (negatives[0], Negatives({key: vectors}, {key: names}))
        alone.append(loss(attrs.evolve(encoded, pairs=((query, key),)), targets, part, **how))
    assert together.item() == pytest.approx(sum(one.item() for one in alone), abs=1e-9)
    inputs = [*made.values(), *(vectors for vectors, _ in own.values())]
    found, expected = (torch.autograd.grad(x, inputs) for x in (together, sum(alone)))
    for our, their in zip(found, expected, strict=True):
        torch.testing.assert_close(our, their, atol=1e-12, rtol=1e-9)


def test_views_with_the_same_negatives_are_compared_in_one_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heights = []
    original = sources.similarities

    def counted(queries: Tensor, vectors: Tensor) -> Tensor:
        heights.append(len(queries))
        return original(queries, vectors)

    monkeypatch.setattr(sources, "similarities", counted)
    _, (encoded, targets, negatives) = step(0)
    softmax_loss(encoded, targets, negatives[1:2], cosine=True, temperature=0.1)
    assert heights == [15]  # four pairs, three query views: once each, together
    heights.clear()
    softmax_loss(encoded, targets, negatives[2:], cosine=True, temperature=0.1)
    assert heights == [5, 5, 5]  # rows of the query's own are not another view's


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(made) if isinstance(t, Tensor) and not t._is_view()]
        self.numbers = max([self.numbers, *sizes])
        return made


@pytest.mark.parametrize("live", [True, False])
def test_no_tensor_of_queries_by_negatives_exists(
    live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "VALUES", 1 << 12)
    rows, count = 256, 512
    make = torch.Generator().manual_seed(0)
    queries = torch.randn(rows, 8, generator=make, requires_grad=True)
    own = torch.arange(rows)
    encoded = Encoded({0: queries}, {0: queries}, {0: own}, ((0, 0),), {})
    vectors = torch.randn(count, 8, generator=make, requires_grad=live)
    negatives = (Negatives({0: vectors}, {0: torch.arange(count)}),)
    sizes = []
    for loss in (softmax_loss, plain):
        with Largest() as largest:
            targets = Targets({0: queries}, {0: own})
            loss(
                encoded, targets, negatives, cosine=True, temperature=0.1, reduction="mean"
            ).backward()
        sizes.append(largest.numbers)
    assert sizes[0] <= 1 << 12
    assert sizes[1] >= rows * count


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("autocast", [True, False])
def test_sums_are_in_full_precision_whatever_comes(dtype: torch.dtype, autocast: bool) -> None:
    made, (encoded, targets, negatives) = step(1, rows=40)
    rounded = {v: rows.detach().to(dtype).requires_grad_() for v, rows in made.items()}
    every = torch.cat([rounded[0], rounded[1]])
    records = [
        Encoded(rounded, rounded, encoded.identities, encoded.pairs, {}),
        Targets({0: rounded[0], 1: rounded[1]}, targets.identities),
        (Negatives(dict.fromkeys((0, 1), every), negatives[0].identities), negatives[1]),
    ]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = softmax_loss(*records, cosine=True, temperature=0.1)
    loss.backward()
    wide = {v: rows.detach().double() for v, rows in rounded.items()}
    exact = plain(
        Encoded(wide, wide, encoded.identities, encoded.pairs, {}),
        Targets({0: wide[0], 1: wide[1]}, targets.identities),
        (Negatives(dict.fromkeys((0, 1), every.detach().double()), negatives[0].identities),
         negatives[1]),
        cosine=True, temperature=0.1, reduction="mean",
    )  # fmt: skip
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)
    assert all(rows.grad is not None and rows.grad.dtype == dtype for rows in rounded.values())


@pytest.mark.parametrize("temperature", [1.0, 0.01, 1e-4])
def test_extreme_logits_and_queries_without_negatives(temperature: float) -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    own = torch.tensor([0, 1])
    encoded = Encoded({0: queries}, {0: queries}, {0: own}, ((0, 0),), {})
    keys = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    # The first query has no negative at all, the second two of cosine 0 beside a key of -1.
    negatives = (Negatives({0: vectors}, {0: torch.tensor([0, 0])}),)
    loss = softmax_loss(
        encoded, Targets({0: keys}, {0: own}), negatives, cosine=True, temperature=temperature
    )
    loss.backward()
    expected = math.log(2 + math.exp(-1 / temperature)) + 1 / temperature
    assert loss.item() == pytest.approx(expected / 2, rel=1e-6)
    assert queries.grad is not None and queries.grad.isfinite().all()
    assert queries.grad[0].tolist() == [0, 0]


def test_one_image_and_nothing_to_tell_it_from() -> None:
    query = torch.randn(1, 3, requires_grad=True)
    own = torch.zeros(1, dtype=torch.int64)
    encoded = Encoded({0: query}, {0: query}, {0: own}, ((0, 0),), {})
    targets = Targets({0: torch.randn(1, 3)}, {0: own})
    for vectors, names in ((query, own), (torch.empty(0, 3), None)):
        parts = (Negatives({0: vectors}, {0: names}),)
        loss = softmax_loss(encoded, targets, parts, cosine=True, temperature=0.1)
        (gradient,) = torch.autograd.grad(loss, query, materialize_grads=True)
        assert loss.item() == 0 and gradient.abs().max() == 0


def test_identities_of_any_size_and_layout() -> None:
    """Beyond what floating point numbers hold, and every other one of a longer tensor."""
    queries = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    own = torch.tensor([0, 2**62, 2**62 + 1])
    whose = torch.tensor([2**62 + 1, 9, 2**62, 9, 7, 9])[::2]
    vectors = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    positives = torch.zeros(3, 1, dtype=DOUBLE)
    weights = torch.ones(3, 1, dtype=DOUBLE)
    found = cross_entropy_in_chunks(queries, positives, weights, own, [Source(vectors, whose)])
    expected = slow(queries, positives, weights, own, [(vectors, whose, False)])
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_a_second_derivative_is_refused_in_words() -> None:
    made, records = step(0)
    loss = softmax_loss(*records, cosine=True, temperature=0.1)
    with pytest.raises(CoviewError, match=r"cannot be differentiated twice.*similarity.candidates"):
        torch.autograd.grad(loss, made[0], create_graph=True)


def test_nothing_waits_for_the_device() -> None:
    class NoAnswer(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            assert "_local_scalar_dense" not in str(func) and "nonzero" not in str(func)
            return func(*args, **(kwargs or {}))

    _, records = step(0)
    with NoAnswer():
        tau = torch.tensor(0.1, dtype=DOUBLE)
        softmax_loss(*records, cosine=True, temperature=tau).backward()
