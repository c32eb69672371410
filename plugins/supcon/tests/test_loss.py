"""The loss against a slow one written from equation 2."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import coview
from coview import Batch, Encoded, Negatives, RequestError, Step, Targets

BOTH = ((0, 1), (1, 0))
ROWS, WIDTH = 6, 4
LABELS = [0, 1, 0, 2, 1, 0]


def random(seed: int = 0, views: int = 2) -> dict[int, Tensor]:
    make = torch.Generator().manual_seed(seed)
    z = torch.randn(views, ROWS, WIDTH, generator=make, dtype=torch.float64)
    return {view: z[view] for view in range(views)}


def value(
    z: dict[int, Tensor],
    labels: Any = LABELS,
    pairs: Any = BOTH,
    keys: dict[int, Tensor] | None = None,
    **chosen: Any,
) -> Tensor:
    own = {slot: torch.arange(len(rows)) for slot, rows in z.items()}
    given_ = torch.tensor(labels)
    images = torch.zeros(len(given_), 3, 2, 2, dtype=torch.uint8)
    batch = Batch(images, torch.arange(len(given_)), {"labels": given_})
    loss: Tensor = coview.component("losses", "supcon", **chosen).compute_loss(
        Encoded(z, z, own, pairs, {}), Targets(keys or z, own), batch, Step()
    )
    return loss


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))


def slow(z: dict[int, Tensor], labels: list[int], temperature: float) -> float:
    """Equation 2, view by view and positive by positive, over the number of views."""
    every = [row for rows in z.values() for row in rows.tolist()]
    classes = labels * len(z)
    total = 0.0
    for i, anchor in enumerate(every):
        others = [a for a in range(len(every)) if a != i]
        scale = sum(math.exp(cosine(anchor, every[a]) / temperature) for a in others)
        positives = [p for p in others if classes[p] == classes[i]]
        logs = [
            math.log(math.exp(cosine(anchor, every[p]) / temperature) / scale) for p in positives
        ]
        total -= sum(logs) / len(logs)
    return total / len(every)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
@pytest.mark.parametrize("labels", [LABELS, [0] * ROWS, list(range(ROWS)), [3, 3, 3, 1, 1, 1]])
def test_equals_the_formula(labels: list[int], temperature: float) -> None:
    z = random()
    expected = slow(z, labels, temperature)
    assert value(z, labels, temperature=temperature).item() == pytest.approx(expected, rel=1e-10)


def test_three_views() -> None:
    z = random(views=3)
    pairs = tuple((a, b) for a in z for b in z if a != b)
    assert value(z, pairs=pairs).item() == pytest.approx(slow(z, LABELS, 0.1), rel=1e-10)


def test_a_worked_example() -> None:
    """Two images of one class, along the axes: each has three candidates, all positives."""
    e = torch.eye(2, dtype=torch.float64)
    # Cosines to the others: 1, 0 and 0.
    scale = math.log(math.e + 2)
    seen = value({0: e, 1: e}, [5, 5], temperature=1.0)
    assert seen.item() == pytest.approx(scale - 1 / 3, abs=1e-12)
    # Of two classes: the one positive is the own other view.
    seen = value({0: e, 1: e}, [5, 6], temperature=1.0)
    assert seen.item() == pytest.approx(scale - 1, abs=1e-12)


def test_without_two_of_a_class_it_is_nt_xent() -> None:
    z, own = random(), torch.arange(ROWS)
    ids = {0: own, 1: own}
    every, whose = torch.cat([z[0], z[1]]), own.repeat(2)
    negatives = Negatives({0: every, 1: every}, {0: whose, 1: whose})
    simclr = coview.component("losses", "info-nce", temperature=0.1).compute_loss(
        Encoded(z, z, ids, BOTH, {}), Targets(z, ids), (negatives,), Step()
    )
    assert value(z, list(range(ROWS))).item() == pytest.approx(simclr.item(), rel=1e-9)
    assert value(z).item() != pytest.approx(simclr.item(), rel=1e-3)


def test_an_image_without_a_label_is_a_class_of_its_own() -> None:
    z = random()
    seen = value(z, [0, -1, 0, -1, 1, 1]).item()
    assert seen == pytest.approx(slow(z, [0, 7, 0, 8, 1, 1], 0.1), rel=1e-10)


def test_its_gradient() -> None:
    z = [rows.requires_grad_() for rows in random(1).values()]
    assert torch.autograd.gradcheck(lambda a, b: value({0: a, 1: b}, temperature=0.5), (z[0], z[1]))


def test_a_view_alone_in_its_class_counts_as_nothing() -> None:
    """One view, as query and key: an image that is alone has no positive."""
    z = {0: random()[0].requires_grad_()}
    labels = [0, 0, 1, 2, 3, 4]
    seen = value(z, labels, ((0, 0),))
    pair = [z[0][i].tolist() for i in (0, 1)]
    total = 0.0
    for i, own in enumerate(pair):
        others = [r for n, r in enumerate(z[0].tolist()) if n != i]
        scale = math.log(sum(math.exp(cosine(own, r) / 0.1) for r in others))
        total += scale - cosine(pair[0], pair[1]) / 0.1
    assert seen.item() == pytest.approx(total / ROWS, rel=1e-10)
    (gradient,) = torch.autograd.grad(seen, z[0])
    assert gradient.isfinite().all()


def test_keys_of_another_network() -> None:
    """A momentum target: a query's own view is no candidate, whosever key it is."""
    z, keys = random(), random(3)
    seen = value(z, keys=keys, temperature=0.5).item()
    total, classes = 0.0, LABELS * 2
    every = [row for view in keys.values() for row in view.tolist()]
    anchors = [row for view in z.values() for row in view.tolist()]
    for i, anchor in enumerate(anchors):
        others = [a for a in range(2 * ROWS) if a != i]
        scale = math.log(sum(math.exp(cosine(anchor, every[a]) / 0.5) for a in others))
        alike = [p for p in others if classes[p] == classes[i]]
        total += sum(scale - cosine(anchor, every[p]) / 0.5 for p in alike) / len(alike)
    assert seen == pytest.approx(total / (2 * ROWS), rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-2, 1e2), st.permutations(range(ROWS)), st.permutations(range(3)))
def test_lengths_order_and_names_of_classes_do_not_count(
    scale: float, order: list[int], names: list[int]
) -> None:
    z = random(2)
    moved = {slot: scale * rows[order] for slot, rows in z.items()}
    labels = [names[LABELS[i]] for i in order]
    assert value(moved, labels).item() == pytest.approx(value(z).item(), rel=1e-9)


def test_an_encoder_of_places_is_refused() -> None:
    with pytest.raises(RequestError, match=r"\[6\] rows for 3 images"):
        value(random(), [0, 1, 2])


def test_it_says_what_keeps_it_from_collapse() -> None:
    (guard,) = coview.component("losses", "supcon").guards()
    assert guard.on
