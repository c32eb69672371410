"""The wrapper: what is nearest, what is remembered, and when."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import coview
from coview import Batch, Plan, RequestError, Step, Targets
from coview.losses.similarity import unit
from coview.method.module import build_method
from coview.recipes.configure import Changes, configure


def double(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def wrapper(size: int = 4, dim: int = 2, **chosen: Any) -> Any:
    torch.manual_seed(0)
    return coview.component(
        "wrappers", "nearest-neighbours", plan=Plan(batch_size=2, dim=dim), size=size, **chosen
    )


def wrapped(made: Any, targets: Targets, step: Step | None = None) -> Targets:
    """Return what the wrapper makes of what a target returned."""
    running = made.encode_targets(step or Step())
    next(running)
    with pytest.raises(StopIteration) as stopped:
        running.send(targets)
    seen: Targets = stopped.value.value
    return seen


def of(keys: dict[int, Any]) -> Targets:
    rows = {slot: double(values) for slot, values in keys.items()}
    return Targets(rows, {slot: torch.arange(len(z)) for slot, z in rows.items()})


COMPASS = [[1.0, 0], [0, 1], [-1, 0], [0, -1]]


def test_the_nearest_row_by_angle() -> None:
    made = wrapper()
    made.support.copy_(double(COMPASS))
    logged: dict[str, float] = {}
    step = Step(sink=lambda name, seen: logged.update({name: seen.item()}))
    given_ = of({0: [[3, 4], [-0.01, 0.001]], 1: [[0, -7]]})
    seen = wrapped(made, given_, step)
    assert seen.keys[0].tolist() == [[0, 1], [-1, 0]] and seen.keys[1].tolist() == [[0, -1]]
    mean = (0.8 + 0.01 / (0.01**2 + 0.001**2) ** 0.5 + 1) / 3
    assert logged == {"neighbour_similarity": pytest.approx(mean)}
    assert seen.identities is given_.identities
    # The keys themselves are what a queue would keep.
    assert all(torch.equal(seen.remembered[s], given_.keys[s]) for s in (0, 1))


def test_what_a_target_remembers_itself_is_kept() -> None:
    made = wrapper()
    own = {0: double([[5, 5], [6, 6]])}
    given_ = attrs.evolve(of({0: [[1, 0], [0, 1]], 1: [[1, 1], [1, 0]]}), remembered=own)
    seen = wrapped(made, given_)
    assert seen.remembered[0] is own[0] and torch.equal(seen.remembered[1], given_.keys[1])


def test_neighbours_pass_no_gradient() -> None:
    made = wrapper()
    keys = double([[3, 4]]).requires_grad_()
    seen = wrapped(made, Targets({0: keys}, {0: torch.arange(1)}))
    assert not seen.keys[0].requires_grad and not seen.remembered[0].requires_grad


@pytest.mark.parametrize("takes, each", [("first", 1), ("all", 2)])
def test_the_oldest_rows_are_overwritten(takes: str, each: int) -> None:
    """Three steps of two keys go through four rows: the pointer turns round.

    The first view is the one with the lowest number, not the first that a target happens to give.
    """
    made = wrapper(takes=takes)
    first = made.support.clone()
    expected = list(first)
    place = 0
    for number in range(3):
        keys = {1: [[-number - 1, 1], [-1, 5]], 0: [[number + 1, 1], [1, number + 2]]}
        given_ = of(keys)
        made.update_target(attrs.evolve(given_, remembered=given_.keys))
        for slot in range(each):
            for row in given_.keys[slot]:
                expected[place % 4] = unit(row).float()
                place += 1
        torch.testing.assert_close(made.support, torch.stack(expected))
        assert made.pointer.item() == place % 4


def test_more_keys_than_the_set_holds() -> None:
    made = wrapper(size=3)
    given_ = of({0: [[n + 1, 1] for n in range(5)]})
    made.update_target(attrs.evolve(given_, remembered=given_.keys))
    torch.testing.assert_close(made.support, unit(given_.keys[0][-3:]).float())
    assert made.pointer.item() == 0


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e3), st.permutations(range(6)))
def test_length_and_order_do_not_count(scale: float, order: list[int]) -> None:
    made = wrapper(size=16, dim=3)
    make = torch.Generator().manual_seed(1)
    keys = torch.randn(6, 3, generator=make, dtype=torch.float64)
    own = {0: torch.arange(6)}
    plain = wrapped(made, Targets({0: keys}, own)).keys[0]
    seen = wrapped(made, Targets({0: scale * keys[order]}, own)).keys[0]
    assert torch.equal(seen, plain[order])
    cosines = unit(keys) @ made.support.double().T
    assert torch.equal(plain, made.support.double()[cosines.argmax(dim=1)])


def test_a_plan_without_a_width_is_refused() -> None:
    with pytest.raises(RequestError, match="needs a plan with dim"):
        coview.component("wrappers", "nearest-neighbours", plan=Plan(batch_size=2))


def built(method: str, use: dict[str, str] | None = None, **chosen: Any) -> Any:
    small = {"encoder.dim": 8, "encoder.hidden": 16, "wrap.size": 32}
    sets = {**small, **{key.replace("__", "."): value for key, value in chosen.items()}}
    changes = Changes(preset="small", backbone="resnet10-quarter", use=use or {}, set=sets)
    plan = Plan(dataset_size=64, batch_size=8, image_size=16, total_steps=20)
    torch.manual_seed(0)
    return build_method(configure(method, None, changes, "test"), plan).train()


def images(seed: int = 0) -> Batch:
    make = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (8, 3, 16, 16), generator=make, dtype=torch.uint8)
    return Batch(pixels, torch.arange(8))


def test_it_is_read_before_it_is_written() -> None:
    """No key of a step is a neighbour in it; the first view's keys are in the next."""
    method = built("nnclr", encoder__predictor_hidden=16)
    support = method.components["wrap-nearest-neighbours"].support
    before = support.clone()
    seen: list[Targets] = []

    class Watching:
        @coview.hookimpl
        def update_target(self, targets: Targets) -> None:
            seen.append(targets)

    method.observe(Watching(), "watching")
    method(images(), Step()).backward()
    assert torch.equal(support, before)
    method.update_target(Step())
    (targets,) = seen
    for slot in (0, 1):
        rows = targets.keys[slot].float()
        assert (rows.unsqueeze(1) == before).all(dim=-1).any(dim=1).all()
    torch.testing.assert_close(support[:8], unit(targets.remembered[0]).float())
    assert torch.equal(support[8:], before[8:])


def test_a_queue_of_negatives_keeps_the_keys_and_not_their_neighbours() -> None:
    method = built("moco-v2", {"wrap": "nearest-neighbours"}, negatives__size=24)
    method(images(), Step()).backward()
    ((_, _, _, targets),) = method._records
    method.update_target(Step())
    queue = method.components["negatives"].rows
    for view in (0, 1):  # each has its own queue
        torch.testing.assert_close(queue[view, :8], unit(targets.remembered[view]).float())
        assert not torch.allclose(queue[view, :8], unit(targets.keys[view]).float())
