"""Records: joining micro-batches, and the step's randomness."""

from __future__ import annotations

import torch

from coview.method.joining import detached, joined
from coview.records import Batch, Encoded, Step, Targets, Views


def test_joining_by_rows() -> None:
    def encoded(value: float) -> Encoded:
        rows = torch.full((2, 3), value, requires_grad=True)
        own = torch.tensor([int(value), 9])
        return Encoded({0: rows}, {0: rows * 2}, {0: own}, ((0, 1),), {0: rows})

    whole = joined([detached(encoded(1.0)), detached(encoded(2.0))])
    assert whole.pairs == ((0, 1),)
    assert whole.queries[0].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
    assert whole.projections[0][3, 0] == 4
    assert whole.identities[0].tolist() == [1, 9, 2, 9]
    assert not whole.queries[0].requires_grad


def test_joining_views_and_batches() -> None:
    views = Views((torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 2, 2)), (0,), (1,), ((0, 1),))
    whole = joined([views, views])
    assert [crop.shape[0] for crop in whole.crops] == [4, 4]
    assert (whole.queries, whole.keys) == ((0,), (1,))
    batch = Batch(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([4, 5]))
    assert joined([batch, batch]).indices.tolist() == [4, 5, 4, 5]
    targets = Targets({1: torch.ones(1, 2)}, {1: torch.tensor([0])})
    assert joined([targets]) is targets


def draw(step: Step) -> list[float]:
    return torch.rand(3, generator=step.generator).tolist()


def test_randomness_depends_on_seed_step_component_and_micro_batch_alone() -> None:
    base = {"number": 4, "total_steps": 10, "seed": 1}
    first = draw(Step(**base).within("views"))
    assert draw(Step(**base).within("views")) == first
    others = [
        Step(**{**base, "number": 5}).within("views"),
        Step(**{**base, "seed": 2}).within("views"),
        Step(**base).within("target"),
        Step(**base, micro=1).within("views"),
    ]
    assert all(draw(step) != first for step in others)


def test_a_component_goes_on_where_it_left_within_a_step() -> None:
    step = Step(seed=3, total_steps=1)
    one, two = draw(step.within("a")), draw(step.within("a"))
    assert one != two
    generator = torch.Generator().manual_seed(Step(seed=3).seed_for("a"))
    assert torch.rand(3, generator=generator).tolist() == one


def test_epochs_and_fraction() -> None:
    step = Step(number=25, steps_per_epoch=10, total_steps=45)
    assert (step.epoch, step.total_epochs, step.fraction) == (2, 5, 25 / 45)


def test_metrics_are_detached() -> None:
    seen = {}
    Step(sink=seen.__setitem__).log("a", torch.ones((), requires_grad=True) * 2)
    assert (seen["a"].item(), seen["a"].requires_grad) == (2.0, False)
