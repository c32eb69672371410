from __future__ import annotations

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


class Trunk(nn.Module):
    """Pixels through batch norm (or not) and a linear layer."""

    num_features = 5

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.linear = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.linear(self.norm(images).flatten(1))
        return features


LAYOUT = Layout(((2, 2),) * 2, (3, 3), (0,), (1,), ((0, 1),))


def pair(norm: bool = True, groups: int = 1, kind: str = "linear", **chosen: Any) -> Any:
    """Return an online encoder and a momentum target, in float64."""
    torch.manual_seed(0)
    spec = BackboneSpec("tiny", lambda c, s, _: Trunk(norm))
    plan = Plan(batch_size=16, backbone=spec, layout=LAYOUT)
    online: Any = coview.component("encoders", kind, plan=plan, norm_groups=groups, dim=4).double()
    plan = attrs.evolve(plan, encoder=online, dim=4)
    return online, coview.component("targets", "momentum", plan=plan, **chosen)


def views(rows: int = 16, seed: int = 1) -> Views:
    make = torch.Generator().manual_seed(seed)
    crops = torch.randn(2, rows, 3, 2, 2, generator=make, dtype=torch.float64)
    # Rows of rising contrast, so that a batch norm's group matters.
    crops = crops * torch.linspace(0.1, 5, rows, dtype=torch.float64).view(-1, 1, 1, 1)
    return Views(tuple(crops), (0,), (1,), ((0, 1),))


def batch(rows: int = 16) -> Batch:
    return Batch(torch.zeros(rows, 3, 2, 2, dtype=torch.uint8), torch.arange(rows) + 7)


def keys(target: Any, step: Step | None = None) -> Tensor:
    found: Tensor = target.encode_targets(views(), None, batch(), step or Step()).keys[1]
    return found


def weights(module: nn.Module) -> list[list[float]]:
    return [p.detach().flatten().tolist() for p in module.parameters()]


def shift(module: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by)


def test_starts_equal_and_apart() -> None:
    online, target = pair()
    for name, parameter in online.named_parameters():
        mine = dict(target.network.named_parameters())[name]
        assert torch.equal(mine, parameter) and mine.data_ptr() != parameter.data_ptr()
    _, projections = online.project(views(), (1,))
    assert torch.allclose(keys(target), projections[1].detach(), atol=1e-12)


def test_keys_are_of_the_key_views_and_take_no_gradient() -> None:
    online, target = pair()
    found = target.encode_targets(views(), None, batch(), Step())
    assert list(found.keys) == [1] and torch.equal(found.identities[1], batch().indices)
    assert not found.keys[1].requires_grad and found.keys[1].grad_fn is None
    query = online.encode(views(), batch()).queries[0]
    (query * found.keys[1]).sum().backward()
    assert all(p.grad is not None for p in online.parameters())
    assert all(p.grad is None and not p.requires_grad for p in target.network.parameters())


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1))
def test_weights_move_by_the_equation(decay: float) -> None:
    online, target = pair(decay=decay)
    shift(online, 0.7)
    expected = [
        [decay * old + (1 - decay) * new for old, new in zip(olds, news, strict=True)]
        for olds, news in zip(weights(target.network), weights(online), strict=True)
    ]
    target.update_target(online, Step())
    for mine, there in zip(weights(target.network), expected, strict=True):
        assert mine == pytest.approx(there, abs=1e-12)


def test_one_freezes_and_zero_copies() -> None:
    for decay in (1.0, 0.0):
        online, target = pair(decay=decay)
        before = weights(target.network)
        shift(online, 0.7)
        target.update_target(online, Step())
        assert weights(target.network) == (before if decay else weights(online))


@pytest.mark.parametrize(
    "decay, steps, expected",
    [
        (0.999, 1, 0.999),
        (0.999, 256, 0.774043),
        (0.999, 1000, 0.367695),
        (0.999, 693, 0.5),
        (0.99, 69, 0.5),
    ],
)
def test_how_fast_it_forgets(decay: float, steps: int, expected: float) -> None:
    online, target = pair(decay=decay)
    with torch.no_grad():
        [p.fill_(0) for p in online.parameters()]
        [p.fill_(1) for p in target.network.parameters()]
    for _ in range(steps):
        target.update_target(online, Step())
    assert weights(target.network)[0] == pytest.approx([expected] * 3, abs=1e-3 * expected)
    if expected != 0.5:
        assert weights(target.network)[0][0] == pytest.approx(expected, abs=1e-6)


def test_moving_before_or_after_the_step_gives_the_same_keys() -> None:
    """Online weights 0, 1, 1, 1 and decay 0.9: keys are made by 0, 0.1, 0.19."""
    online, target = pair(decay=0.9)
    with torch.no_grad():
        [p.fill_(0) for p in (*online.parameters(), *target.network.parameters())]
    used = []
    for number in range(3):
        used.append(weights(target.network)[0][0])
        with torch.no_grad():
            [p.fill_(1) for p in online.parameters()]
        target.update_target(online, Step(number=number))
    assert used == pytest.approx([0, 0.1, 0.19])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_schedule_is_read_at_every_step(dtype: torch.dtype) -> None:
    """BYOL's, over four steps: 0.9, 0.91464466, 0.95, 0.98535534."""
    online, target = pair(decay=coview.cosine(0.9, 1.0))
    online.to(dtype), target.to(dtype)
    with torch.no_grad():
        [p.fill_(0) for p in online.parameters()]
        [p.fill_(1) for p in target.network.parameters()]
    for number, expected in enumerate((0.9, 0.82318019, 0.78202119, 0.77056875)):
        target.update_target(online, Step(number=number, total_steps=4))
        assert weights(target.network)[0] == pytest.approx([expected] * 3, abs=1e-7)
    assert next(target.network.parameters()).dtype == dtype


def test_a_decay_near_one_still_moves_single_precision() -> None:
    online, target = pair(decay=coview.cosine(0.9996, 0.9996))
    online.float(), target.float()
    before = weights(target.network)[2][0]
    shift(online, 1.0)
    target.update_target(online, Step())
    moved = weights(target.network)[2][0] - before
    assert moved == pytest.approx(4e-4, rel=1e-2)


@pytest.mark.parametrize("buffers", ["own", "copy"])
def test_running_statistics(buffers: str) -> None:
    online, target = pair(buffers=buffers, decay=0.5)
    views_ = views()
    online.project(views_, (0,))
    keys(target)
    theirs, mine = (m.trunk.norm.running_mean.clone() for m in (online, target.network))
    assert not torch.allclose(theirs, mine)
    for network, view in ((online, 0), (target.network, 1)):
        seen = views_.crops[view].mean((0, 2, 3)) * 0.1
        assert torch.allclose(network.trunk.norm.running_mean, seen, atol=1e-12)
    target.update_target(online, Step())
    expected = mine if buffers == "own" else theirs
    assert torch.equal(target.network.trunk.norm.running_mean, expected)


def test_it_normalises_by_its_own_batch() -> None:
    _, target = pair()
    target.network.trunk.norm.running_mean.fill_(100)
    first = keys(target)
    target.network.trunk.norm.running_mean.fill_(-100)
    assert torch.equal(keys(target), first)


def test_shuffling_changes_nothing_without_batch_norm() -> None:
    for groups in (1, 4):
        _, plain = pair(norm=False, groups=groups, shuffle=False)
        _, shuffled = pair(norm=False, groups=groups, shuffle=True)
        assert torch.allclose(keys(plain), keys(shuffled), atol=1e-12)


def test_shuffling_changes_nothing_in_one_group() -> None:
    """The batch's statistics are the same in any order: hence the groups."""
    _, plain = pair(groups=1, shuffle=False)
    _, shuffled = pair(groups=1, shuffle=True)
    assert torch.allclose(keys(plain), keys(shuffled), atol=1e-10)


def test_shuffling_deals_rows_anew_over_the_groups() -> None:
    _, plain = pair(groups=4, shuffle=False)
    _, shuffled = pair(groups=4, shuffle=True)
    assert (keys(plain) - keys(shuffled)).abs().max() > 0.05
    # Another order at every step, the same one at the same step.
    assert (keys(shuffled) - keys(shuffled, Step(number=1))).abs().max() > 0.05
    assert torch.equal(keys(shuffled, Step(number=1)), keys(shuffled, Step(number=1)))


def test_shuffled_keys_are_what_the_dealt_groups_give() -> None:
    """By hand: permute, run every group alone, put the rows back."""
    online, target = pair(groups=4, shuffle=True)
    found = keys(target, Step(number=5, seed=2))
    order = torch.randperm(16, generator=Step(number=5, seed=2).generator).tolist()
    assert order != list(range(16))
    crop = views().crops[1]
    expected: list[Any] = [None] * 16
    for start in range(0, 16, 4):
        group = order[start : start + 4]
        rows = online.projector(online.trunk(torch.stack([crop[i] for i in group])))
        for place, row in zip(group, rows, strict=True):
            expected[place] = row
    assert torch.allclose(found, torch.stack(expected).detach(), atol=1e-12)


def test_queries_keep_their_order() -> None:
    online, _ = pair(groups=4, shuffle=True)
    query = online.encode(views(), batch()).queries[0]
    crop = views().crops[0]
    expected = torch.cat([online.projector(online.trunk(part)) for part in crop.split(4)])
    assert torch.allclose(query, expected, atol=1e-12)


def test_the_copy_is_saved_once_and_whole() -> None:
    online, target = pair()
    shift(target.network, 1.0)
    names = set(target.state_dict())
    assert names == {f"network.{name}" for name in online.state_dict()}
    _, other = pair()
    other.load_state_dict(target.state_dict())
    assert weights(other.network) == weights(target.network)
    assert target.backbone() is target.network.trunk


def test_needs_an_encoder() -> None:
    with pytest.raises(coview.RequestError, match="needs a plan with the encoder"):
        coview.component("targets", "momentum")


@pytest.mark.parametrize("decay", [-0.1, 1.1, "cosine(0.9, 1.2)"])
def test_a_decay_outside_0_to_1_is_refused(decay: Any) -> None:
    with pytest.raises(coview.RequestError, match="decay.* must be between 0 and 1"):
        pair(decay=decay)
