from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import coview
from coview import Encoded, Layout, Plan, Step, Targets


def queue(size: int = 8, width: int = 2, **chosen: Any) -> Any:
    plan = Plan(dim=width)
    return coview.component("negatives", "queue", plan=plan, size=size, **chosen).double()


def targets(*views: Tensor) -> Targets:
    keys = {slot: rows.double() for slot, rows in enumerate(views)}
    return Targets(keys, {slot: torch.arange(len(rows)) for slot, rows in keys.items()})


def numbered(*numbers: int) -> Tensor:
    """Unit vectors that tell their number by their angle."""
    angles = torch.tensor(numbers, dtype=torch.float64) / 100
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def numbers(rows: Tensor) -> list[int]:
    return [round(math.atan2(y, x) * 100) for x, y in rows.tolist()]


def test_the_worked_example() -> None:
    made = queue(8)
    made.rows.copy_(numbered(*range(-1, -9, -1)))
    for first, expected, pointer in (
        (10, [10, 11, 12, 13, -5, -6, -7, -8], 4),
        (20, [10, 11, 12, 13, 20, 21, 22, 23], 0),
        (30, [30, 31, 32, 33, 20, 21, 22, 23], 4),
    ):
        made.update_target(targets(numbered(*range(first, first + 4))), Step())
        assert numbers(made.rows) == expected
        assert made.pointer.item() == pointer


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.lists(st.integers(1, 15), min_size=1, max_size=2), min_size=1, max_size=8),
)
def test_first_in_first_out_at_any_batch_size(size: int, steps: list[list[int]]) -> None:
    """Against a deque; a step may bring more keys than the queue holds, of several views."""
    made = queue(size)
    made.rows.copy_(numbered(*range(-1, -size - 1, -1)))
    model = deque(range(-1, -size - 1, -1), maxlen=size)
    following = 0
    for views in steps:
        parts = []
        for rows in views:
            parts.append(list(range(following, following + rows)))
            following = (following + rows) % 250
            parts[-1] = [n % 250 for n in parts[-1]]
        made.update_target(targets(*(numbered(*part) for part in parts)), Step())
        model.extend(number for part in parts for number in part)
        pointer = made.pointer.item()
        assert 0 <= pointer < size
        held = numbers(made.rows)
        assert held[pointer:] + held[:pointer] == list(model)


@pytest.mark.parametrize(
    "keys_a_step, steps, size, pointer",
    [(256, 5004, 65536, 35840), (512, 97, 4096, 512), (1024, 97, 4096, 1024)],
)
def test_where_an_epoch_ends(keys_a_step: int, steps: int, size: int, pointer: int) -> None:
    made = queue(size, 1)
    rows = targets(torch.ones(keys_a_step, 1))
    # The pointer repeats after `size` keys; whole rounds need not be walked.
    for _ in range(steps % (size // keys_a_step)):
        made.update_target(rows, Step())
    assert made.pointer.item() == pointer == steps * keys_a_step % size


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.floats(1e-3, 1e3))
def test_exactly_the_batch_s_rows_change_and_are_unit(rows: int, scale: float) -> None:
    made = queue(10, 3)
    before = made.rows.clone()
    made.update_target(targets(torch.randn(rows, 3) * scale), Step())
    changed = (made.rows != before).any(1)
    assert changed.tolist() == [True] * rows + [False] * (10 - rows)
    assert torch.allclose(made.rows.norm(dim=1), torch.ones(10).double(), atol=1e-6)


def test_starts_with_random_unit_vectors() -> None:
    rows = queue(500, 128).rows
    assert torch.allclose(rows.norm(dim=1), torch.ones(500).double(), atol=1e-6)
    similar = (rows @ rows.T).fill_diagonal_(0)
    assert similar.square().sum().item() / (500 * 499) == pytest.approx(1 / 128, rel=0.05)


def test_a_positive_is_read_before_it_is_written() -> None:
    made = queue(6, 3)
    before = made.rows.clone()
    keys = targets(torch.randn(2, 3))
    drawn = made.draw_negatives(keys, Step())
    assert torch.equal(drawn.vectors[0], before) and drawn.normalized
    assert drawn.identities == {0: None}
    similar = drawn.vectors[0] @ torch.nn.functional.normalize(keys.keys[0]).T
    assert similar.max() < 1 - 1e-6
    made.update_target(keys, Step())
    similar = made.rows @ torch.nn.functional.normalize(keys.keys[0]).T
    assert (similar.max(0).values > 1 - 1e-6).all()


def test_no_copy_is_made_for_any_key() -> None:
    made = queue()
    drawn = made.draw_negatives(targets(torch.randn(2, 2), torch.randn(2, 2)), Step())
    assert drawn.vectors[0] is made.rows and drawn.vectors[1] is made.rows


def test_no_gradient_reaches_the_queue() -> None:
    made = queue(5, 3)
    query = torch.randn(4, 3).double().requires_grad_()
    keys = targets(torch.randn(4, 3))
    own = torch.arange(4)
    loss: Any = coview.component("losses", "info-nce")
    encoded = Encoded({0: query}, {0: query}, {0: own}, ((0, 0),), {})
    loss.compute_loss(encoded, keys, (made.draw_negatives(keys, Step()),), Step()).backward()
    assert query.grad is not None and query.grad.abs().sum() > 0
    assert made.rows.grad is None and list(made.parameters()) == []
    assert keys.keys[0].grad is None


@pytest.mark.parametrize("tau, expected", [(0.07, 0.055854), (0.2, 0.326652), (1.0, 0.889272)])
def test_the_loss_with_a_queue(tau: float, expected: float) -> None:
    made = queue(3)
    made.rows.copy_(torch.tensor([[0, 1], [-1, 0], [0.6, 0.8]]))
    query = torch.tensor([[2, 0]]).double()
    keys = targets(torch.tensor([[4, 3]]))
    encoded = Encoded({0: query}, {}, {0: torch.zeros(1).long()}, ((0, 0),), {})
    loss: Any = coview.component("losses", "info-nce", temperature=tau)
    value = loss.compute_loss(encoded, keys, (made.draw_negatives(keys, Step()),), Step())
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "size, tau, random, aligned",
    [(65536, 0.07, 11.8876, 0.0870), (4096, 0.1, 8.7086, 0.2428), (65536, 0.2, 11.1880, 6.1901)],
)
def test_loss_against_a_random_queue(size: int, tau: float, random: float, aligned: float) -> None:
    """log(K + 1) + 1 / (2 d tau^2) at the start; what is left when query and key agree."""
    torch.manual_seed(0)
    made = coview.component("negatives", "queue", plan=Plan(dim=128), size=size)
    loss: Any = coview.component("losses", "info-nce", temperature=tau)
    queries, keys = torch.randn(2, 256, 128)
    own = torch.arange(256)
    encoded = Encoded({0: queries}, {}, {0: own}, ((0, 0),), {})
    for key, expected, off in ((keys, random, 0.1), (queries, aligned, 0.01)):
        pair = Targets({0: key}, {0: own})
        value = loss.compute_loss(encoded, pair, (made.draw_negatives(pair, Step()),), Step())
        assert value.item() == pytest.approx(expected, abs=off)


def two_view_queue(size: int = 3, **chosen: Any) -> Any:
    layout = Layout(((8, 8),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))
    plan = Plan(dim=2, batch_size=2, layout=layout, steps_per_epoch=4, total_steps=40)
    made = coview.component("negatives", "queue", plan=plan, size=size, **chosen)
    return made.double()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_each_view_may_have_a_queue(size: int, steps: list[int]) -> None:
    made = two_view_queue(size, per_view=True)
    assert made.rows.shape == (2, size, 2)
    models = [deque(numbers(rows), maxlen=size) for rows in made.rows]
    following = 0
    for rows in steps:
        first, second = (range(following + i, following + i + rows) for i in (0, 150))
        given_ = targets(numbered(*first), numbered(*second))
        drawn = made.draw_negatives(given_, Step())
        for view, model in enumerate(models):
            pointer = made.pointer.item()
            held = numbers(drawn.vectors[view])
            assert held[pointer:] + held[:pointer] == list(model)
        made.update_target(given_, Step())
        models[0].extend(first)
        models[1].extend(second)
        following += rows


def test_a_view_without_a_queue_is_refused() -> None:
    made = two_view_queue(per_view=True)
    with pytest.raises(coview.RequestError, match=r"key slot 2: set negatives.per_view = false"):
        made.draw_negatives(Targets({2: torch.randn(2, 2)}, {}), Step())


@pytest.mark.parametrize("per_view, filling", [(False, 3), (True, 5)])
def test_it_may_start_late_and_speak_when_full(per_view: bool, filling: int) -> None:
    """From epoch 1 (step 4) on; 9 rows take 3 steps of two views of 2 images, or 5 of one."""
    made = two_view_queue(9, per_view=per_view, from_epoch=1, once_full=True)
    start = made.rows.clone()
    for number in range(4 + filling + 1):
        keys = targets(torch.randn(2, 2), torch.randn(2, 2))
        drawn = made.draw_negatives(keys, Step(number=number, steps_per_epoch=4))
        assert (drawn is None) == (number < 4 + filling)
        random_left = (made.rows == start).all(-1).any().item()
        assert random_left == (number < 4 + filling)
        made.update_target(keys, Step(number=number, steps_per_epoch=4))


def test_state_is_saved_whole() -> None:
    one, other = queue(5), queue(5)
    one.update_target(targets(torch.randn(3, 2)), Step())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.rows, other.rows) and other.pointer.item() == 3


@pytest.mark.parametrize(
    "images, batch, asked, kept",
    [(100, 16, 84, 84), (100, 16, 85, 84), (100, 90, 64, 64), (100, 90, 90, 90), (100, 90, 91, 90)],
)
def test_it_holds_no_more_than_the_data_set(images: int, batch: int, asked: int, kept: int) -> None:
    said: list[str] = []
    plan = Plan(dataset_size=images, batch_size=batch, dim=2, notice=said.append)
    made: Any = coview.component("negatives", "queue", plan=plan, size=asked)
    assert len(made.rows) == kept
    assert len(said) == (asked > kept)
    if said:
        assert f"keeps {kept} keys instead of {asked}" in said[0]


def test_each_kind_of_rows_has_a_queue_and_one_kind_shares_one() -> None:
    slots = {0: "images", 1: "places", 2: "images"}
    made: Any = coview.component(
        "negatives", "queue", plan=Plan(dim=2, slots=slots), size=8
    ).double()
    assert made.rows.shape == (2, 8, 2)
    made.update_target(targets(numbered(1), numbered(2, 3), numbered(4)), Step())
    assert numbers(made.rows[0])[:2] == [1, 4] and numbers(made.rows[1])[:2] == [2, 3]
    alike = Plan(dim=2, slots=dict.fromkeys(slots, "images"))
    made = coview.component("negatives", "queue", plan=alike, size=8)
    assert made.rows.shape == (8, 2)


def test_the_paper_s_values() -> None:
    made = coview.component("negatives", "queue", plan=Plan(dim=2))
    assert made.rows.shape == (65536, 2) and made.ready_step == 0


def test_a_width_that_does_not_fit_is_refused() -> None:
    with pytest.raises(coview.RequestError, match="width 3, but the encoder's have width 2"):
        queue(8, 2, dim=3)
