"""The variant in which the rows of a batch do not meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import coview
from coview import Batch, Plan, Step
from coview.method.module import Method, build_method
from coview.nn.backbones import BackboneSettings, find_backbone
from coview.nn.heads import StandardizedLinear, norm
from coview.recipes.configure import Changes, configure


def test_the_sheet_s_group_norm_and_weight_standardisation() -> None:
    layer: Any = torch.nn.GroupNorm(2, 4)
    assert layer(torch.tensor([[1.0, 3, 2, 6]]))[0].tolist() == pytest.approx(
        [-1, 1, -1, 1], abs=1e-4
    )
    linear = StandardizedLinear(3, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2, 3]]))
    assert linear(torch.eye(3))[:, 0].tolist() == pytest.approx([-1.224745, 0, 1.224745], abs=1e-4)
    assert norm("group", 64).num_groups == 16


def test_a_convolution_does_not_see_scale_and_shift_of_its_weights() -> None:
    torch.manual_seed(0)
    factory, entry = find_backbone("resnet18-gn-ws")
    assert entry is not None
    net = factory(3, 32, BackboneSettings(stem="3x3")).eval()
    images = torch.randn(2, 3, 32, 32)
    before = net(images)
    assert before.shape == (2, 512)
    with torch.no_grad():
        net.layer1[0].conv1.weight.mul_(3).add_(0.7)
    assert torch.allclose(net(images), before, atol=1e-3)
    names = set(find_backbone("resnet18")[0](3, 32, BackboneSettings(stem="3x3")).state_dict())
    kept = {n for n in names if "running" not in n and "num_batches" not in n}
    assert set(net.state_dict()) == kept


def method(preset: str, **sets: Any) -> Method:
    heads = {"encoder.hidden": 32, "encoder.dim": 16, "encoder.predictor_hidden": 32,
             "backbone.stem": "3x3", "views.size": 16}  # fmt: skip
    backbone = "resnet18-gn-ws" if preset == "no-batch-statistics" else "resnet18"
    changes = Changes(preset=preset, backbone=backbone, set={**heads, **sets})
    torch.manual_seed(0)
    resolved = configure("byol", None, changes, "test")
    return build_method(resolved, Plan(batch_size=4, image_size=16, total_steps=8)).train()


@pytest.mark.parametrize("preset, meet", [("no-batch-statistics", False), ("none", True)])
def test_whether_rows_meet_before_the_loss(preset: str, meet: bool) -> None:
    made = method(preset)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    views = made.components["views"].generate_views(Batch(images, torch.arange(4)), Step())
    encoded = made.encoder.encode(views, Batch(images, torch.arange(4)))
    other = coview.Views(
        tuple(torch.cat([crop[:1], torch.randn_like(crop[1:])]) for crop in views.crops),
        views.queries, views.keys, views.pairs,
    )  # fmt: skip
    changed = made.encoder.encode(other, Batch(images, torch.arange(4)))
    same = torch.allclose(encoded.queries[0][0], changed.queries[0][0], atol=1e-4)
    assert same is not meet


@pytest.mark.parametrize("kind", ["none", "layer", "group", "batch"])
def test_every_norm_of_the_heads_trains(kind: str) -> None:
    made = method("no-batch-statistics", **{"encoder.norm": kind})
    batch = Batch(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), torch.arange(4))
    moves = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.01)
    for number in range(2):
        step = Step(number=number, total_steps=8)
        moves.zero_grad()
        loss = made(batch, step)
        loss.backward()
        moves.step()
        made.update_target(step)
        assert 0 <= loss.item() <= 8
    assert all(p.grad is not None for p in made.encoder.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["resnet10-quarter-gn-ws", "resnet10-quarter-no-norm"])
def test_a_small_network_without_batch_statistics(name: str) -> None:
    torch.manual_seed(0)
    small = BackboneSettings(stem="7x7")
    net: Any = find_backbone(name)[0](1, 32, small).train()
    kinds = {type(module).__name__ for module in net.modules()}
    assert not kinds & {"BatchNorm2d", "BatchNormAct2d"}
    images = torch.randn(6, 1, 32, 32)
    rows = net(images)
    assert rows.shape == (6, 128) and rows.isfinite().all() and rows.std() > 1e-3
    # A row does not depend on the others.
    assert torch.allclose(net(images[:2]), rows[:2], atol=1e-5)
    groups = [m.num_groups for m in net.modules() if isinstance(m, torch.nn.GroupNorm)]
    standardised = [m for m in net.modules() if type(m).__name__ == "StdConv2d"]
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    if name.endswith("gn-ws"):
        assert set(groups) == {4} and standardised == convolutions
        # As many channels in a group as in a ResNet-18 with 16 groups.
        assert net.bn1.num_channels // net.bn1.num_groups == 64 // 16
    else:
        assert not groups and not standardised
