"""Optimisers and learning rates against the sheets' worked numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from coview.components import ParameterGroup
from coview.optim import groups
from coview.optim.groups import make_optimizer, set_rate
from coview.optim.lars import LARS
from coview.optim.optimizers import MakeLARS, MakeSGD
from coview.optim.schedules import Cosine, Steps
from coview.plan import Plan


def lars(weight: torch.Tensor, **group: Any) -> LARS:
    options = {k: group.pop(k) for k in ("rate_in_momentum", "clip") if k in group}
    return LARS([{"params": [weight], **group}], momentum=0.9, eta=1e-3, **options)


def step(optimizer: LARS, weight: nn.Parameter, gradient: list[float]) -> list[float]:
    weight.grad = torch.tensor(gradient, dtype=weight.dtype)
    optimizer.step()
    return weight.tolist()


def weights() -> nn.Parameter:
    return nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))


def test_simclr_sheet_t5_4() -> None:
    w = weights()
    optimizer = lars(w, lr=4.8)
    assert step(optimizer, w, [0.0, 1.0]) == pytest.approx([3, 3.976])
    assert step(optimizer, w, [0.0, 1.0]) == pytest.approx([3, 3.930492], abs=1e-6)
    doubled = weights()
    assert step(lars(doubled, lr=4.8), doubled, [0.0, 2.0]) == pytest.approx([3, 3.976])
    decayed = weights()
    seen = step(lars(decayed, lr=4.8, weight_decay=0.1), decayed, [0.0, 1.0])
    assert seen == pytest.approx([2.994971, 3.976533], abs=1e-6)
    excluded = weights()
    seen = step(lars(excluded, lr=4.8, adapted=False), excluded, [0.0, 1.0])
    assert seen == pytest.approx([3, -0.8])


def test_byol_sheet_update_has_the_length_of_eta_times_the_weights() -> None:
    w = weights()
    before = w.detach().clone()
    step(lars(w, lr=1.0, weight_decay=1e-2, rate_in_momentum=False), w, [0.0, 0.5])
    moved = before - w.detach()
    assert moved.tolist() == pytest.approx([0.000277, 0.004992], abs=1e-6)
    assert moved.norm().item() == pytest.approx(0.005)


def test_rate_inside_and_outside_momentum_differ_when_the_rate_falls() -> None:
    ends = []
    for inside in (True, False):
        w = weights()
        optimizer = lars(w, lr=1.0, rate_in_momentum=inside)
        step(optimizer, w, [0.0, 1.0])
        optimizer.param_groups[0]["lr"] = 0.1
        ends.append(step(optimizer, w, [0.0, 1.0])[1])
    # First step: trust .005, v = .005. Second, inside: v = .0045 + .1 x .0049...
    assert ends[0] == pytest.approx(3.995 - (0.0045 + 0.1 * 1e-3 * math.hypot(3, 3.995)))
    assert ends[1] == pytest.approx(3.995 - 0.1 * (0.0045 + 1e-3 * math.hypot(3, 3.995)))


def test_clipping_never_raises_the_rate() -> None:
    w = weights()
    assert step(lars(w, lr=0.01, clip=True), w, [0.0, 1e-6]) == pytest.approx([3, 4 - 0.01 * 1e-6])
    # trust / lr = .005 / .01 < 1 is kept.
    v = weights()
    assert step(lars(v, lr=0.01, clip=True), v, [0.0, 1.0]) == pytest.approx([3, 4 - 0.01 * 0.5])


def test_zero_weights_or_gradients_are_not_adapted() -> None:
    w = nn.Parameter(torch.zeros(2))
    assert step(lars(w, lr=0.5), w, [0.0, 1.0]) == [0.0, -0.5]
    v = weights()
    assert step(lars(v, lr=0.5), v, [0.0, 0.0]) == [3.0, 4.0]


class Holder(nn.Module):
    """What make_optimizer needs of a method."""

    def __init__(self, component: nn.Module) -> None:
        super().__init__()
        self.components = nn.ModuleDict({"encoder": component})


class WithGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.predictor = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {"predictor.*": ParameterGroup(fixed_rate=True)}


def test_groups_exclusions_and_fixed_rates() -> None:
    component = WithGroups()
    settings = MakeLARS.Settings(lr=0.2, lr_rule="linear", weight_decay=0.1)
    optimizer = make_optimizer(
        MakeLARS, settings, Holder(component), Plan(batch_size=512), torch.device("cpu")
    )
    names = {id(p): n for n, p in component.named_parameters()}
    found = {
        (g["weight_decay"], g["adapted"], g["fixed_rate"]): {names[id(p)] for p in g["params"]}
        for g in optimizer.param_groups
    }
    assert found == {
        (0.1, True, False): {"body.0.weight"},
        (0.0, False, False): {"body.0.bias", "body.1.weight", "body.1.bias"},
        (0.1, True, True): {"predictor.weight"},
        (0.0, False, True): {"predictor.bias"},
    }
    set_rate(optimizer, 0.05)
    rates = {(g["fixed_rate"], g["lr"]) for g in optimizer.param_groups}
    assert rates == {(False, 0.05), (True, 0.4)}


def test_sgd_decays_everything_by_default() -> None:
    optimizer = make_optimizer(
        MakeSGD, MakeSGD.Settings(), Holder(WithGroups()), Plan(), torch.device("cpu")
    )
    assert {g["weight_decay"] for g in optimizer.param_groups} == {1e-4}


@pytest.mark.parametrize(
    ("rule", "batch", "peak"), [("linear", 4096, 4.8), ("none", 4096, 0.3), ("sqrt", 1024, 9.6)]
)
def test_peak_rates(rule: str, batch: int, peak: float) -> None:
    settings = MakeLARS.Settings(lr=0.3, lr_rule=rule)
    assert settings.peak(batch) == pytest.approx(peak)


def test_simclr_warm_up_is_3127_steps_of_imagenet_at_4096() -> None:
    plan = Plan(dataset_size=1281167, batch_size=4096, steps_per_epoch=312, total_steps=31279)
    schedule = Cosine(Cosine.Settings(warmup_epochs=10), plan)
    listed = {0: 0.0, 1000: 1.535018, 3127: 4.8, 17203: 2.4, 31279: 0.0}
    seen = {number: schedule.rate(4.8, number) for number in listed}
    assert seen == pytest.approx(listed, abs=1e-6)


def test_moco_v2_cosine_moves_by_epoch() -> None:
    plan = Plan(steps_per_epoch=10, total_steps=2000)
    schedule = Cosine(Cosine.Settings(per="epoch"), plan)
    listed = {0: 0.03, 50: 0.025607, 100: 0.015, 150: 0.004393, 199: 1.8505e-6}
    for epoch, rate in listed.items():
        assert schedule.rate(0.03, epoch * 10 + 9) == pytest.approx(rate, abs=5e-7)


def test_warm_up_from_a_rate_and_a_final_rate() -> None:
    plan = Plan(dataset_size=100, batch_size=10, steps_per_epoch=10, total_steps=100)
    schedule = Cosine(Cosine.Settings(warmup_epochs=1, warmup_start=0.1, final=0.01), plan)
    assert schedule.rate(1.0, 0) == pytest.approx(0.1)
    assert schedule.rate(1.0, 5) == pytest.approx(0.55)
    assert schedule.rate(1.0, 10) == pytest.approx(1.0)
    assert schedule.rate(1.0, 100) == pytest.approx(0.01)


def test_moco_steps() -> None:
    schedule = Steps(Steps.Settings(), Plan(steps_per_epoch=2, total_steps=400))
    rates = [schedule.rate(0.03, epoch * 2) for epoch in (0, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])


def test_norms_and_biases_are_excluded_whatever_their_names() -> None:
    components = nn.ModuleDict(
        {
            "encoder": nn.Sequential(
                nn.GRU(2, 2), nn.MultiheadAttention(2, 1), nn.RMSNorm(2), nn.Linear(2, 2)
            )
        }
    )
    method = nn.Module()
    method.components = components
    excluded = groups._norm_and_bias(method)
    names = {name for name, one in components.encoder.named_parameters() if one in excluded}
    assert names == {
        *("0.bias_ih_l0", "0.bias_hh_l0", "1.in_proj_bias", "1.out_proj.bias"),
        *("2.weight", "3.bias"),
    }
