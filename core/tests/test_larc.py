"""LARC, scheduled weight decay, and parameters that start to move late."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from coview.optim.groups import make_optimizer, set_weight_decay
from coview.optim.lars import LARC, LARS
from coview.plan import Plan
from coview.records import Step
from coview.registry import entries, find
from coview.schedules import cosine


def moved(optimizer: type[LARS], gradient: list[float], **group: Any) -> list[float]:
    weight = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    made = optimizer([{"params": [weight], "lr": 1.0, **group}], eta=1e-3)
    weight.grad = torch.tensor(gradient, dtype=torch.float64)
    made.step()
    return [3 - weight[0].item(), 4 - weight[1].item()]


def test_swav_sheet_update() -> None:
    """w = (3, 4), g = (0, .5), weight decay 1e-2: lengths are added, not the vectors."""
    update = moved(LARC, [0.0, 0.5], weight_decay=1e-2)
    assert update == pytest.approx([0.000273, 0.004909], abs=1e-6)
    assert math.hypot(*update) == pytest.approx(0.004917, abs=1e-6)
    factor = 1e-3 * 5 / (0.5 + 1e-2 * 5 + 1e-8)
    assert update == pytest.approx([factor * 0.03, factor * 0.54], rel=1e-12)


def test_without_weight_decay_larc_is_lars() -> None:
    lars = moved(LARS, [0.3, -0.5], weight_decay=0.0)
    assert moved(LARC, [0.3, -0.5], weight_decay=0.0) == pytest.approx(lars, rel=1e-6)


def test_two_steps_of_momentum_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    made = LARC([{"params": [weight], "lr": 0.5, "weight_decay": 0.1}], momentum=0.9, eta=0.02)
    w, buffer = [3.0, 4.0], [0.0, 0.0]
    for gradient, rate in (([1.0, -2.0], 0.5), ([0.5, 0.25], 0.2)):
        made.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        made.step()
        length = math.hypot(*w)
        factor = 0.02 * length / (math.hypot(*gradient) + 0.1 * length + 1e-8)
        for i in range(2):
            buffer[i] = 0.9 * buffer[i] + factor * (gradient[i] + 0.1 * w[i])
        w = [w[i] - rate * buffer[i] for i in range(2)]
        assert weight.tolist() == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize("weight, gradient", [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0])])
def test_a_zero_length_is_neither_adapted_nor_decayed(
    weight: list[float], gradient: list[float]
) -> None:
    w = nn.Parameter(torch.tensor(weight))
    made = LARC([{"params": [w], "lr": 0.5, "weight_decay": 0.1}])
    w.grad = torch.tensor(gradient)
    made.step()
    assert w.tolist() == pytest.approx([a - 0.5 * g for a, g in zip(weight, gradient, strict=True)])


def test_clip_never_raises_the_rate() -> None:
    group = {"lr": 0.01, "weight_decay": 0.0}
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    made = LARC([{"params": [w], **group}], eta=1.0, clip=True)
    w.grad = torch.tensor([0.03, 0.04])
    made.step()
    # trust = 5 / 0.05 = 100 is more than the rate allows: an ordinary step of 0.01.
    assert w.tolist() == pytest.approx([3 - 0.01 * 0.03, 4 - 0.01 * 0.04])


class Two(nn.Module):
    """What an optimiser asks of a method: a component with two parameters and a bias."""

    def __init__(self) -> None:
        super().__init__()
        part = nn.Module()
        part.early = nn.Linear(2, 2)
        part.late = nn.Linear(2, 2, bias=False)
        self.components = nn.ModuleDict({"encoder": part})


@pytest.mark.parametrize("name", [entry.name for entry in entries("optimizers")])
def test_a_parameter_without_gradient_rests_and_then_starts_as_if_new(name: str) -> None:
    """Freezing means no gradient at all; decay and momentum must not move it, nor stumble."""
    torch.manual_seed(0)
    method = Two()
    maker = find("optimizers", name).load()
    plan, cpu = Plan(), torch.device("cpu")
    made = make_optimizer(maker, maker.Settings(lr=0.1, weight_decay=0.1), method, plan, cpu)
    part: Any = method.components["encoder"]
    before = part.late.weight.detach().clone()
    for number in range(4):
        for p in method.parameters():
            p.grad = torch.ones_like(p)
        if number < 2:
            part.late.weight.grad = None
        made.step()
        assert torch.equal(before, part.late.weight) is (number < 2)
    fresh = Two()
    fresh_part: Any = fresh.components["encoder"]
    fresh_part.late.weight.data = before.clone()
    again = make_optimizer(maker, maker.Settings(lr=0.1, weight_decay=0.1), fresh, plan, cpu)
    for _ in range(2):
        for p in fresh.parameters():
            p.grad = torch.ones_like(p)
        again.step()
    assert torch.allclose(part.late.weight, fresh_part.late.weight, atol=1e-7)


def test_weight_decay_may_be_a_schedule() -> None:
    maker = find("optimizers", "adamw").load()
    settings = maker.Settings(weight_decay=cosine(0.04, 0.4), exclude_norm_and_bias=True)
    made = make_optimizer(maker, settings, Two(), Plan(), torch.device("cpu"))
    decays = {group["scheduled_decay"]: group for group in made.param_groups}
    assert decays[True]["weight_decay"] == pytest.approx(0.04)
    for number, expected in ((0, 0.04), (50, 0.22), (75, 0.34727922), (100, 0.4)):
        set_weight_decay(made, settings, Step(number=number, total_steps=100))
        assert decays[True]["weight_decay"] == pytest.approx(expected, abs=1e-8)
        assert decays[False]["weight_decay"] == 0
    constant = maker.Settings(weight_decay=0.3)
    made = make_optimizer(maker, constant, Two(), Plan(), torch.device("cpu"))
    set_weight_decay(made, constant, Step(number=50, total_steps=100))
    assert {group["weight_decay"] for group in made.param_groups} == {0.3}
