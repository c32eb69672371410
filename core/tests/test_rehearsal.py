"""Steps on a CUDA device that is not there, and mutants that such a device would not run well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import coview
from coview.hookspecs import hookimpl
from coview.records import Batch, Encoded, Step, Targets, Views
from coview.testing import ConformanceError
from coview.testing.rehearsal import rehearse
from coview.testing.rehearsal.backward import run_backward
from coview.testing.rehearsal.pretended import pretended_cuda

Change = Callable[["Mutant", Tensor, Step], Tensor]


class Mutant(nn.Module):
    """A wrapper that does one thing wrong to the views."""

    change: Change

    def __init__(self, settings: Any, plan: Any) -> None:
        super().__init__()
        self.register_buffer("rows", torch.ones(3, 1, 1))
        self.host = torch.ones(3, 1, 1)

    @hookimpl(wrapper=True)
    def generate_views(self, batch: Batch, step: Step) -> Any:
        views: Views = yield
        first = type(self).change(self, views.crops[0], step)
        return attrs.evolve(views, crops=(first, *views.crops[1:]))


def item(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return x * float(x.mean())


def nonzero(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return x + len((x > 0).nonzero())


def mask(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return x + x[x > 0].mean()


def on_cpu(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return x * self.host


def double(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return (x.double() * 2).float()


def pageable(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return x * self.host.to(x.device, non_blocking=True)


def from_a_list(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return x * torch.tensor([2.0], device=x.device)


def replaced(self: Mutant, x: Tensor, step: Step) -> Tensor:
    self.rows = self.rows * 2
    return x * self.rows


def by_the_cpu_s_generator(self: Mutant, x: Tensor, step: Step) -> Tensor:
    return x + torch.rand(x.shape, generator=torch.Generator(), device=x.device)


def correct(self: Mutant, x: Tensor, step: Step) -> Tensor:
    self.rows.mul_(2)
    sent = self.host.pin_memory().to(x.device, non_blocking=True)
    draw = torch.rand(x.shape, generator=step.generator, device=step.generator.device)
    return x * self.rows * sent + draw


WRONG: dict[Change, str] = {
    item: "wait for the device: _local_scalar_dense at test_rehearsal.py",
    nonzero: "wait for the device: nonzero at test_rehearsal.py",
    mask: "wait for the device: index at test_rehearsal.py",
    on_cpu: "to be on the same device|two different devices",  # torch 2.11
    double: "numbers in float64 on the device.*test_rehearsal.py",
    pageable: "ordinary memory.*test_rehearsal.py",
    from_a_list: "wait for the device: tensor at test_rehearsal.py",
    replaced: "the buffer .*rows is another tensor",
    by_the_cpu_s_generator: "a generator of the cpu draws for the cuda.*test_rehearsal.py",
}


class WrittenTooEarly(nn.Module):
    """A loss that overwrites its memory before backward has read it."""

    def __init__(self, settings: Any, plan: Any) -> None:
        super().__init__()
        self.register_buffer("memory", torch.ones(64, plan.dim))

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        query, _ = encoded.pairs[0]
        loss = (encoded.queries[query] @ self.memory.T).square().mean()
        self.memory.mul_(0.5)
        return loss


def rehearsed_with(monkeypatch: pytest.MonkeyPatch, role: str, made: type, **more: Any) -> None:
    """Rehearse SimSiam's small preset with another part, put where parts are built."""
    from coview.method import module
    from coview.method.relay import BuiltComponent

    build = module.build_method

    def changed(resolved: Any, plan: Any, objects: Any = None) -> Any:
        if role != "wrap":
            return build(resolved, plan, {role: made(None, attrs.evolve(plan, dim=2048))})
        method = build(resolved, plan)
        wrapper = BuiltComponent("wrap", made(None, plan), ("wrap",), "mutant", "a test")
        return module.Method([*method.parts.values(), wrapper])

    monkeypatch.setattr("coview.testing.rehearsal.build_method", changed)
    rehearse(
        "simsiam", preset="small", backbone="resnet10-quarter", batch_size=8, evaluate=False, **more
    )


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_a_mutant_is_found(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = type("Wrong", (Mutant,), {"change": change})
    with pytest.raises((ConformanceError, RuntimeError), match=WRONG[change]):
        rehearsed_with(monkeypatch, "wrap", mutant)


def test_the_same_done_rightly_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed_with(monkeypatch, "wrap", type("Right", (Mutant,), {"change": correct}), steps=2)


def test_a_buffer_written_before_backward_read_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        rehearsed_with(monkeypatch, "loss", WrittenTooEarly)


class Twice(torch.autograd.Function):
    """A function of tensors and other things, with two results, one of which may be unused."""

    @staticmethod
    def forward(ctx: Any, name: str, a: Tensor, count: int, b: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, b)
        return a * b, a + b

    @staticmethod
    def backward(ctx: Any, product: Tensor, total: Tensor) -> tuple[Any, ...]:
        a, b = ctx.saved_tensors
        return None, product * b + total, None, product * a + total


@pytest.mark.parametrize("half", [False, True])
def test_the_backward_pass_is_torch_s(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 7)
    )
    images = torch.randn(5, 3, 8, 8)

    def gradients() -> list[Tensor]:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            rows = network(images)
        first, second = Twice.apply("a", rows, 3, rows.sum(1, keepdim=True).expand(5, 7))
        unused, _ = Twice.apply("b", rows, 3, rows * 2)
        loss = first.square().mean() + second.sum() + unused.mean() + rows[:, 0].exp().sum()
        loss.float().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    theirs = gradients()
    monkeypatch.setattr(torch.autograd, "_engine_run_backward", run_backward)
    ours = gradients()
    assert len(ours) == len(theirs) == 6
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)
    # Of chosen inputs alone, which leaves their own gradients as they are.
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (found,) = torch.autograd.grad((x**3).sum(), x)
    assert found.tolist() == [3.0, 12.0] and x.grad is None


def test_nothing_of_the_pretended_device_is_left_behind() -> None:
    from coview.nn import constants

    before = torch.Generator, torch.autograd._engine_run_backward, nn.Module._apply
    with pretended_cuda() as mode, mode.allowing(copying=True):
        made = constants.constant([1.0, 2.0], torch.device("cuda", 0))
        assert made.is_cuda and torch.Generator("cuda").device.type == "cuda"
        layer = nn.Linear(2, 2).to("cuda")
        assert layer.weight.is_cuda and isinstance(layer.weight, nn.Parameter)
    assert (torch.Generator, torch.autograd._engine_run_backward, nn.Module._apply) == before
    assert not constants.constant([1.0, 2.0], torch.device("cpu")).is_cuda


def test_values_of_host_tensors_can_be_read_inside() -> None:
    with pretended_cuda():
        assert torch.linspace(0, 1, 5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert torch.randperm(4, generator=torch.Generator()).sort()[0].tolist() == [0, 1, 2, 3]


def test_a_recipe_of_one_s_own_is_rehearsed() -> None:
    found = rehearse(
        coview.recipe("simsiam"), preset="small", backbone="resnet10-quarter", batch_size=8
    )
    assert found.operations > 100 and found.precision == "bf16"
