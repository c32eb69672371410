from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import coview
from coview import Batch, Encoded, Plan, Step, Targets, Views

ONE = Views((), (0,), (0,), ((0, 0),))


def bank(images: int = 6, dim: int = 4, **chosen: Any) -> Any:
    return coview.component(
        "targets", "memory-bank", plan=Plan(dataset_size=images, dim=dim), **chosen
    )


def batch(*indices: int) -> Batch:
    images = torch.zeros(len(indices), 3, 2, 2, dtype=torch.uint8)
    return Batch(images, torch.tensor(indices))


def features(*views: Tensor) -> Encoded:
    rows = dict(enumerate(views))
    return Encoded(rows, rows, {}, ((0, 0),), {})


def small_bank(**chosen: Any) -> Any:
    """The sheet's four rows (1,0), (0,1), (-1,0), (0,-1)."""
    made = bank(4, 2, **chosen).double()
    made.rows.copy_(torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]]))
    return made


@pytest.mark.parametrize(
    "keep, expected",
    [(0.5, (0.894427, 0.447214)), (0.9, (0.996546, 0.083045)), (0.1, (0.664364, 0.747409))],
)
def test_a_visited_row_moves(keep: float, expected: tuple[float, float]) -> None:
    made = small_bank(momentum=keep)
    made.update_target(features(torch.tensor([[0.6, 0.8]]).double()), batch(0))
    assert made.rows[0].tolist() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_batch_s_rows_move_and_no_others(data: st.DataObject) -> None:
    images = data.draw(st.integers(1, 12))
    visited = data.draw(st.lists(st.integers(0, images - 1), unique=True, min_size=1))
    keep = data.draw(st.floats(0, 1))
    made = bank(images, 3, momentum=keep).double()
    before = made.rows.clone()
    new = torch.randn(len(visited), 3, dtype=torch.float64)
    made.update_target(features(new), batch(*visited))
    for row in range(images):
        if row not in visited:
            assert torch.equal(made.rows[row], before[row])
            continue
        feature = new[visited.index(row)].tolist()
        length = math.hypot(*feature)
        old = before[row].tolist()
        mixed = [keep * a + (1 - keep) * b / length for a, b in zip(old, feature, strict=True)]
        expected = [x / math.hypot(*mixed) for x in mixed]
        assert made.rows[row].tolist() == pytest.approx(expected, abs=1e-9)
        assert made.rows[row].norm().item() == pytest.approx(1, abs=1e-12)


def test_several_views_move_a_row_by_their_mean_direction() -> None:
    made = small_bank(momentum=0)
    two = torch.tensor([[5, 0]]).double(), torch.tensor([[0, 0.1]]).double()
    made.update_target(features(*two), batch(2))
    assert made.rows[2].tolist() == pytest.approx([0.5**0.5, 0.5**0.5])


def test_rows_start_with_expected_length_one() -> None:
    rows = bank(5000, 128).rows
    assert rows.abs().max() <= (3 / 128) ** 0.5
    assert rows.norm(dim=1).mean().item() == pytest.approx(0.9995, abs=2e-3)
    assert rows.square().sum(1).mean().item() == pytest.approx(1, abs=3e-3)


def test_the_key_is_the_image_s_own_row_before_the_step() -> None:
    made = bank()
    before = made.rows.clone()
    views = Views((), (0, 1), (0, 1), ((0, 1), (1, 0)))
    targets = made.encode_targets(views, batch(4, 1))
    made.update_target(features(torch.randn(2, 4)), batch(4, 1))
    for slot in (0, 1):
        assert torch.equal(targets.keys[slot], before[[4, 1]])
        assert targets.identities[slot].tolist() == [4, 1]
        assert not targets.keys[slot].requires_grad


def test_drawing_reads_the_rows_as_they_were() -> None:
    made = bank(draws=50)
    before = made.rows.clone()
    targets = made.encode_targets(ONE, batch(0, 1, 2))
    drawn = made.draw_negatives(targets, batch(0, 1, 2), Step())
    made.update_target(features(torch.randn(3, 4)), batch(0, 1, 2))
    vectors = drawn.vectors[0]
    assert vectors.shape == (3, 50, 4) and drawn.identities[0] is None
    same = (vectors.unsqueeze(2) == before).all(-1)
    assert same.any(-1).all()


def test_draws_are_uniform_with_replacement_and_reach_the_positive() -> None:
    made = bank(5, 2, draws=4000)
    drawn = made.draw_negatives(Targets({0: made.rows[:1]}, {}), batch(0), Step(seed=3))
    counts = (drawn.vectors[0][0].unsqueeze(1) == made.rows).all(-1).sum(0)
    assert counts.sum() == 4000
    assert (counts - 800).abs().max() < 5 * (4000 * 0.2 * 0.8) ** 0.5


def test_draws_follow_the_step() -> None:
    made = bank(100, 2, draws=20)
    targets = Targets({0: made.rows[:2]}, {})

    def drawn(**at: int) -> Tensor:
        vectors: Tensor = made.draw_negatives(targets, batch(0, 1), Step(**at)).vectors[0]
        return vectors

    assert torch.equal(drawn(number=3), drawn(number=3))
    assert not torch.equal(drawn(number=3), drawn(number=4))
    assert not torch.equal(drawn(number=3), drawn(number=3, seed=1))
    assert not torch.equal(drawn()[0], drawn()[1])


def test_no_draws_means_every_row() -> None:
    made = bank(draws=0)
    targets = made.encode_targets(ONE, batch(2))
    drawn = made.draw_negatives(targets, batch(2), Step())
    assert torch.equal(drawn.vectors[0], made.rows)
    assert drawn.identities[0].tolist() == list(range(6))


def test_state_is_saved_whole() -> None:
    one, other = bank(), bank()
    assert not torch.equal(one.rows, other.rows)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.rows, other.rows)
    assert list(one.parameters()) == []


def test_needs_to_know_the_data() -> None:
    for plan in (Plan(dim=4), Plan(dataset_size=4)):
        with pytest.raises(coview.RequestError, match="dataset_size and dim"):
            coview.component("negatives", "memory-bank", plan=plan)
    assert bank(1, 1).rows.shape == (1, 1)


def per_view(queries: tuple[int, ...], keys: tuple[int, ...]) -> Any:
    layout = coview.Layout(((8, 8),) * 2, (3, 3), queries, keys, ((0, 1),))
    plan = Plan(dataset_size=5, dim=4, layout=layout)
    return coview.component("targets", "memory-bank", plan=plan, per_view=True)


@pytest.mark.parametrize("keys", [(0, 1), (1,)])
def test_each_key_view_has_a_bank(keys: tuple[int, ...]) -> None:
    made = per_view((0, 1), keys)
    assert made.rows.shape == (len(keys), 5, 4)
    assert torch.equal(made.bank(keys[-1]), made.rows[-1])


def test_a_bank_for_each_view_needs_views_that_the_network_encodes() -> None:
    with pytest.raises(coview.RequestError, match="needs a plan with the views' layout"):
        bank(per_view=True)
    with pytest.raises(coview.RequestError, match=r"queries are views \[0\] and the keys \[0, 1\]"):
        per_view((0,), (0, 1))


def test_a_bank_that_nobody_divides_is_every_process_s_own() -> None:
    made = bank(shard="always")
    assert made.share is None and made.own_buffers == ()


def test_the_paper_s_values() -> None:
    chosen = bank().settings
    assert (chosen.momentum, chosen.draws) == (0.5, 4096)
    assert (chosen.shared, chosen.per_view, chosen.shard) == (False, False, "auto")


def test_target_and_negatives_are_one_component() -> None:
    plan = Plan(dataset_size=9, batch_size=4)
    method = coview.build(_tiny(coview.recipe("instdisc")), plan)
    assert method.parts["target"].roles == ("target", "negatives")
    rows = [name for name in method.state_dict() if name.endswith("rows")]
    assert rows == ["components.target.rows"]


def test_its_settings_live_in_the_first_role() -> None:
    recipe = _tiny(coview.recipe("instdisc"), negatives=(coview.Use("memory-bank", draws=7),))
    with pytest.raises(coview.RequestError, match="Set target.draws instead"):
        coview.build(recipe, Plan(dataset_size=9, batch_size=4))


def _tiny(recipe: Any, **changes: Any) -> Any:
    return attrs.evolve(recipe, backbone=coview.Use("resnet10-quarter"), **changes)


def test_shared_draws_serve_every_query_and_every_process() -> None:
    made = bank(7, 4, draws=50, shared=True)
    targets = made.encode_targets(ONE, batch(0, 1, 2))
    drawn = made.draw_negatives(targets, batch(0, 1, 2), Step(seed=5))
    vectors = drawn.vectors[0]
    assert vectors.shape == (50, 4) and drawn.identities[0] is None
    counts = (vectors.unsqueeze(1) == made.rows).all(-1).sum(0)
    assert counts.sum() == 50 and (counts > 0).sum() > 4
    # What is drawn depends on the step alone, so processes with other rows draw the same.
    fewer = made.draw_negatives(targets, batch(4), Step(seed=5))
    assert torch.equal(fewer.vectors[0], vectors)
    other = made.draw_negatives(targets, batch(0, 1, 2), Step(seed=6))
    assert not torch.equal(other.vectors[0], vectors)


def test_noise_that_is_shared_costs_what_the_same_noise_costs_each_query() -> None:
    """It is another estimator only because draws are common, not because of what is computed."""
    made = bank(7, 4, draws=9, shared=True).double()
    indices = batch(0, 1, 2)
    targets = made.encode_targets(ONE, indices)
    drawn = made.draw_negatives(targets, indices, Step())
    make = torch.Generator().manual_seed(2)
    queries = {0: torch.randn(3, 4, generator=make, dtype=torch.float64)}
    encoded = Encoded(queries, queries, {0: indices.indices}, ((0, 0),), {})
    values = []
    for vectors in (drawn.vectors[0], drawn.vectors[0].expand(3, 9, 4)):
        loss = coview.component("losses", "nce", plan=Plan(dataset_size=7))
        parts = (coview.Negatives({0: vectors}, {0: None}),)
        values.append(loss.compute_loss(encoded, targets, parts, Step()).item())
    assert values[0] == pytest.approx(values[1], abs=1e-12)
