"""The encoder and the loss against references in plain Python, in float64."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import coview
from coview import Batch, Layout, Plan, Step, Views
from coview.nn.backbones import BackboneSpec
from coview.records import Encoded, Negatives, Targets
from coview_densecl.encoder import correspondence, matched

LAYOUT = Layout(((6, 6),) * 2, (3, 3), (0,), (1,), ((0, 1),))
BOTH = Layout(((6, 6),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))


class Trunk(nn.Module):
    """A convolution with batch norm, whose map has 3 x 3 places."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 2, 2)
        self.norm = nn.BatchNorm2d(5)

    def forward_features(self, images: Tensor) -> Tensor:
        made: Tensor = self.norm(self.convolution(images))
        return made

    def forward_head(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def plan(layout: Layout = LAYOUT, trunk: type[nn.Module] = Trunk) -> Plan:
    return Plan(batch_size=4, backbone=BackboneSpec("t", lambda c, s, _: trunk()), layout=layout)


def encoder(layout: Layout = LAYOUT, **chosen: Any) -> Any:
    torch.manual_seed(0)
    chosen = {"dim": 4, "hidden": 6, **chosen}
    return coview.component("encoders", "dense", plan=plan(layout), **chosen).double()


def views(layout: Layout = LAYOUT, rows: int = 4) -> Views:
    make = torch.Generator().manual_seed(1)
    crops = torch.randn(2, rows, 3, 6, 6, generator=make, dtype=torch.float64)
    # Rows of rising contrast, so that it matters which are batch-normalised together.
    crops = crops * torch.linspace(0.1, 5, rows, dtype=torch.float64).view(-1, 1, 1, 1)
    return Views(tuple(crops), layout.queries, layout.keys, layout.pairs)


def batch(rows: int = 4) -> Batch:
    return Batch(torch.zeros(rows, 3, 6, 6, dtype=torch.uint8), torch.arange(rows) + 7)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def places(maps: Tensor) -> list[list[list[float]]]:
    """(B, D, h, w) as lists by image, place and channel."""
    return maps.flatten(2).transpose(1, 2).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_the_most_similar_place(seed: int, rows: int, high: int, wide: int) -> None:
    make = torch.Generator().manual_seed(seed)
    one, two = torch.randn(2, rows, 3, high, wide, generator=make, dtype=torch.float64)
    found = correspondence(one, two).tolist()
    for image, (queries, keys) in enumerate(zip(places(one), places(two), strict=True)):
        for number, query in enumerate(queries):
            scores = [cosine(query, key) for key in keys]
            assert scores[found[image][number]] == pytest.approx(max(scores), abs=1e-12)
    # Lengths do not matter, and an equal map corresponds to itself.
    assert correspondence(one * 3, two * 0.1).tolist() == found
    assert correspondence(one, one).tolist() == [list(range(high * wide))] * rows
    projected = torch.randn(rows, high * wide, 2, generator=make, dtype=torch.float64)
    expected = [projected[i, best].tolist() for i, row in enumerate(found) for best in row]
    assert matched(one, two, projected).tolist() == expected


@pytest.mark.parametrize("grid", [None, 2])
def test_the_slots_of_a_pair(grid: int | None) -> None:
    online = encoder(grid=grid)
    plan_ = attrs.evolve(plan(), encoder=online, dim=4)
    target = coview.component("targets", "momentum", plan=plan_)
    assert online.slots == {1: "image", 4: "place"} and online.dim == 4
    made = online.encode(views(), batch())
    side = grid or 3
    assert {s: tuple(q.shape) for s, q in made.queries.items()} == {0: (4, 4), 2: (4 * side**2, 4)}
    assert made.pairs == ((0, 1), (2, 4))
    keys = target.encode_targets(views(), made, batch(), Step())
    assert {s: len(k) for s, k in keys.keys.items()} == {1: 4, 4: 4 * side**2}
    whose = [7 + image for image in range(4) for _ in range(side**2)]
    assert made.identities[2].tolist() == keys.identities[4].tolist() == whose
    # By hand: the map, averaged to the grid; the head at every place; the place that fits best.
    crops = views().crops
    maps = [online.trunk.forward_features(crop) for crop in crops]
    assert torch.allclose(made.features[0], maps[0].mean(dim=(2, 3)))
    assert torch.allclose(made.queries[0], online.projector(maps[0].mean(dim=(2, 3))))
    maps = [nn.functional.adaptive_avg_pool2d(one, side) for one in maps]
    heads = [online.dense(one).flatten(2) for one in maps]
    best = correspondence(*maps)
    for image in range(4):
        for place in range(side**2):
            row = image * side**2 + place
            assert torch.allclose(made.queries[2][row], heads[0][image, :, place])
            right = heads[1][image, :, best[image, place]]
            assert torch.allclose(keys.keys[4][row], right, atol=1e-12)
        assert torch.allclose(keys.remembered[4][image], heads[1][image].mean(dim=1))
    assert not keys.keys[4].requires_grad


def reference(query: Tensor, key: Tensor, others: Tensor, temperature: float) -> float:
    """InfoNCE by its formula: a mean over rows of -log softmax of the positive."""
    total = 0.0
    for q, k in zip(query.tolist(), key.tolist(), strict=True):
        scores = [cosine(q, one) / temperature for one in (k, *others.tolist())]
        total += math.log(sum(math.exp(s) for s in scores)) - scores[0]
    return total / len(query)


def loss_of(weight: float | coview.Schedule, step: Step | None = None) -> tuple[float, list[float]]:
    make = torch.Generator().manual_seed(3)
    sizes = {0: 3, 2: 12, 1: 3, 4: 12, 9: 5, 10: 6}
    rows = {
        slot: torch.randn(size, 4, generator=make, dtype=torch.float64)
        for slot, size in sizes.items()
    }
    whose = {slot: torch.arange(len(value)) for slot, value in rows.items()}
    queries = {slot: rows[slot].requires_grad_() for slot in (0, 2)}
    encoded = Encoded(queries, queries, whose, ((0, 1), (2, 4)), {})
    targets = Targets({1: rows[1], 4: rows[4]}, whose)
    queue = Negatives({1: rows[9], 4: rows[10]}, {1: None, 4: None})
    plan_ = Plan(slots={1: "image", 4: "place"})
    loss = coview.component("losses", "dense-info-nce", plan=plan_, dense_weight=weight)
    made = loss.compute_loss(encoded, targets, [queue], step or Step())
    made.backward()
    expected = [
        reference(rows[query], rows[key], rows[other], 0.2)
        for query, key, other in ((0, 1, 9), (2, 4, 10))
    ]
    return made.item(), expected


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 1))
def test_the_loss_is_the_weighted_sum(weight: float) -> None:
    found, (image, place) = loss_of(weight)
    assert image != pytest.approx(place, abs=1e-3)
    assert found == pytest.approx((1 - weight) * image + weight * place, abs=1e-10)


def test_the_weight_may_follow_a_schedule() -> None:
    step = Step(number=5, steps_per_epoch=1, total_steps=10)
    found, (image, place) = loss_of(coview.linear(0.0, 1.0), step)
    assert found == pytest.approx((image + place) / 2, abs=1e-10)


def test_both_parts_are_logged() -> None:
    seen: dict[str, float] = {}
    step = Step(sink=lambda name, value: seen.update({name: value.item()}))
    _, (image, place) = loss_of(0.5, step)
    assert seen == {"loss_image": pytest.approx(image), "loss_place": pytest.approx(place)}


def test_a_queue_for_images_and_one_for_places() -> None:
    online = encoder(BOTH)
    plan_ = attrs.evolve(plan(BOTH), encoder=online, dim=4, slots=online.slots)
    target = coview.component("targets", "momentum", plan=plan_)
    queue = coview.component("negatives", "queue", plan=plan_, size=16).double()
    made = online.encode(views(BOTH), batch())
    keys = target.encode_targets(views(BOTH), made, batch(), Step())
    assert queue.rows.shape == (2, 16, 4)
    queue.update_target(keys, Step())
    unit = nn.functional.normalize
    images = torch.cat([unit(keys.keys[slot], dim=1) for slot in (0, 1)])
    means = torch.cat([unit(keys.remembered[slot], dim=1) for slot in (4, 5)])
    assert torch.allclose(queue.rows[0, :8], images) and torch.allclose(queue.rows[1, :8], means)
    drawn = queue.draw_negatives(keys, Step())
    assert torch.equal(drawn.vectors[0], queue.rows[0]) and torch.equal(
        drawn.vectors[5], queue.rows[1]
    )


def test_keys_of_the_online_network_itself() -> None:
    """What a target without a copy takes: the same places, with gradient."""
    online = encoder(BOTH)
    made = online.encode(views(BOTH), batch())
    keys = online.encode_keys(views(BOTH), made, batch(), Step())
    for slot, rows in keys.keys.items():
        assert torch.allclose(made.projections[slot], rows) and made.projections[slot].requires_grad


def test_shuffled_keys_are_those_of_the_dealt_groups() -> None:
    """Shuffled batch norm with places: permute, run every group alone, put the rows back."""
    online = encoder(norm_groups=2)
    plan_ = attrs.evolve(plan(), encoder=online, dim=4, slots=online.slots)
    target = coview.component("targets", "momentum", plan=plan_, shuffle=True)
    made = online.encode(views(), batch())
    step = Step(number=5, seed=2)
    found = target.encode_targets(views(), made, batch(), step)
    order = torch.randperm(4, generator=Step(number=5, seed=2).generator)
    assert order.tolist() != [0, 1, 2, 3]
    crop = views().crops[1][order]
    maps = torch.cat([online.trunk.forward_features(crop[part]) for part in ([0, 1], [2, 3])])
    maps = maps[order.argsort()]
    assert torch.allclose(found.keys[1], online.projector(maps.mean(dim=(2, 3))), atol=1e-12)
    rows = online.dense(maps).flatten(2).transpose(1, 2)
    assert torch.allclose(found.keys[4], matched(made.maps[0], maps, rows), atol=1e-12)


def test_what_is_refused() -> None:
    three = Layout(((6, 6),) * 3, (3,) * 3, (0, 1), (2,), ((0, 2), (1, 2)))
    with pytest.raises(coview.RequestError, match="these 3 views have 2 pairs for 1 keys"):
        encoder(three)

    class Flat(Trunk):
        """A backbone without a map."""

        forward_features = None  # type: ignore[assignment]

    online = coview.component("encoders", "dense", plan=plan(trunk=Flat))
    with pytest.raises(coview.RequestError, match="the backbone Flat has no feature map"):
        online.encode(views(), batch())
    with pytest.raises(coview.RequestError, match="compares images only: use --use encoder=dense"):
        coview.component("losses", "dense-info-nce", plan=Plan())
