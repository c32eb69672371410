"""A value that is not finite: which batch, which component, and no such checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import coview
from coview.errors import CoviewError
from coview.training.health import gradient_norm, not_finite

OPTIONS: dict[str, Any] = {
    "data": "digits",
    "backbone": "resnet10-quarter",
    "image_size": 16,
    "batch_size": 16,
    "set": {"backbone.stem": "7x7"},
    "device": "cpu",
    "evaluate": False,
    "progress": False,
    "save_every": "2",
    "max_steps": 6,
}


class Spoils:
    """Makes one value of one step infinite or no number."""

    def __init__(self, what: str, step: int = 4) -> None:
        self.what, self.number = what, step
        self.run: Any = None
        self.seen: dict[int, list[int]] = {}

    @coview.hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run
        module = run.method.components["encoder"].trunk
        module.get_submodule("layer2.0.conv1").register_forward_hook(self.spoil_output)

    def due(self, what: str) -> bool:
        return self.what == what and self.run.step + 1 == self.number

    def spoil_output(self, module: Any, given: Any, output: torch.Tensor) -> None:
        if self.due("module"):
            with torch.no_grad():
                output[0, 0, 0, 0] = torch.inf

    @coview.hookimpl(wrapper=True)
    def generate_views(self, batch: Any) -> Any:
        views = yield
        self.seen[self.run.step + 1] = batch.indices.tolist()
        if self.due("views"):
            views.crops[1][3] = torch.nan
        return views

    @coview.hookimpl(wrapper=True)
    def compute_loss(self) -> Any:
        loss = yield
        return loss * torch.nan if self.due("loss") else loss

    @coview.hookimpl(tryfirst=True)
    def gradients_ready(self) -> None:
        if self.due("weights"):
            next(self.run.method.parameters()).grad.fill_(torch.inf)


def spoilt(spoils: Spoils, out: Path, **options: Any) -> str:
    """Train until it is noticed; return the sentence."""
    observe = [*options.pop("observe", ()), spoils]
    with pytest.raises(CoviewError) as caught:
        coview.train("simclr", out=out, observe=observe, **OPTIONS, **options)
    return str(caught.value)


def saved_step(out: Path) -> int:
    state = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert all(v.isfinite().all() for v in state["method"].values() if v.is_floating_point())
    return int(state["step"])


@pytest.mark.parametrize("log_every", [1, 50])
def test_the_batch_that_gave_it_is_named(tmp_path: Path, log_every: int) -> None:
    spoils = Spoils("loss", step=3)
    message = spoilt(spoils, tmp_path / "r", log_every=log_every)
    # With log_every = 50 it is noticed before step 4 is saved.
    assert message.startswith("Training diverged: the loss of step 3 is not finite")
    assert f"{tmp_path / 'r' / 'checkpoints' / 'last.pt'} (step 2)" in message
    assert "--observe anomaly" in message
    report = json.loads((tmp_path / "r" / "nonfinite.json").read_text())
    assert report["step"] == 3 and report["loss"] == "nan"
    assert report["indices"] == spoils.seen[3]
    assert saved_step(tmp_path / "r") == 2


def test_diverged_weights_are_not_saved_though_the_loss_was_finite(tmp_path: Path) -> None:
    message = spoilt(Spoils("weights"), tmp_path / "r")
    assert re.search(r"after step 4, encoder\.\S+ is not finite", message)
    assert saved_step(tmp_path / "r") == 2


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("views", r"what views 'simclr' of package coview-simclr gives"),
        ("module", r"the output of encoder\.trunk\.\S*layer2\.0\.conv1 \(Conv2d\) in encoder"),
        ("loss", r"what loss 'info-nce' of package coview-cpc gives"),
        ("weights", r"after the optimiser's step, encoder\."),
    ],
)
def test_the_component_that_gave_it_first_is_named(tmp_path: Path, what: str, named: str) -> None:
    spoils = Spoils(what)
    message = spoilt(spoils, tmp_path / "r", observe=["anomaly"])
    assert message.startswith("Step 4: the first value that is not finite is ")
    assert re.search(named, message), message
    report = json.loads((tmp_path / "r" / "nonfinite.json").read_text())
    assert report["indices"] == spoils.seen[4]
    assert saved_step(tmp_path / "r") == 2


class Backwards(torch.autograd.Function):
    """The identity, with a gradient that is none."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan


class SpoilsGradient:
    @coview.hookimpl
    def run_started(self, run: Any) -> None:
        layer = run.method.components["encoder"].trunk.get_submodule("layer3.0.conv2")
        layer.register_forward_hook(lambda module, given, output: Backwards.apply(output))


def test_a_gradient_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoviewError, match=r"the gradient of encoder\.\S*layer3\.0\.conv2\.weight"):
        coview.train("simclr", out=tmp_path / "r", observe=["anomaly", SpoilsGradient()], **OPTIONS)


def test_a_run_that_is_well_is_left_as_it_is(tmp_path: Path) -> None:
    ends = [
        coview.train("moco", out=tmp_path / str(len(observe)), observe=observe, **OPTIONS)
        for observe in ((), ("anomaly",))
    ]
    states = [run.method.state_dict() for run in ends]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    norms = [entry["grad_norm"] for entry in ends[0].metrics]
    assert norms == [entry["grad_norm"] for entry in ends[1].metrics] and norms[0] > 0


def test_gradient_norm_is_that_of_one_long_vector() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    layers(torch.randn(2, 5)).square().sum().backward()
    layers[1].bias.grad = None
    total = 0.0
    for parameter in layers.parameters():
        for value in parameter.grad.flatten().tolist() if parameter.grad is not None else ():
            total += value**2
    assert gradient_norm(layers.parameters()).item() == pytest.approx(total**0.5, rel=1e-6)
    assert gradient_norm([]).item() == 0.0


def test_what_is_not_finite_has_a_name() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    module.register_buffer("mask", torch.full((2,), -torch.inf))
    assert not_finite(module) == []
    with torch.no_grad():
        module[1].weight[0, 0] = torch.inf
        module[0].running_var[1] = torch.nan
    assert not_finite(module) == ["1.weight", "0.running_var"]
