"""MoCo v3: its loss's worked numbers, heads, schedules, and runs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import coview
from coview import Batch, Encoded, Plan, Step, Targets
from coview.method.module import build_method
from coview.nn.backbones import BackboneSpec
from coview.optim.groups import make_optimizer
from coview.recipes.configure import Changes, configure

DOUBLE = torch.float64
Q = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=DOUBLE)
K = torch.tensor([[0.8, 0.6], [0.6, 0.8], [-0.6, 0.8]], dtype=DOUBLE)


def contrast(
    queries: dict[int, Tensor], keys: dict[int, Tensor], pairs: Any, temperature: float
) -> float:
    """The recipe's loss with the recipe's negatives."""
    own = torch.arange(len(next(iter(keys.values()))))
    targets = Targets(keys, dict.fromkeys(keys, own))
    encoded = Encoded(queries, {}, dict.fromkeys(queries, own), pairs, {})
    part = coview.component("negatives", "in-batch", views="key").draw_negatives(targets)
    loss = coview.component(
        "losses", "info-nce", temperature=temperature, scale="2-temperature", reduction="sum"
    )
    return loss.compute_loss(encoded, targets, (part,), Step()).item()


def test_moco_v3_toy_1() -> None:
    eye = torch.eye(2, dtype=DOUBLE)
    assert contrast({0: eye}, {1: eye}, ((0, 1),), 0.2) == pytest.approx(0.002686, abs=1e-6)
    swapped = contrast({0: eye}, {1: eye.flip(0)}, ((0, 1),), 0.2)
    assert swapped == pytest.approx(2.002686, abs=1e-6)
    low = 0.4 * math.log1p(math.exp(-10))
    high = 0.4 * math.log1p(math.exp(10))
    assert (low, high) == (pytest.approx(1.816e-5, rel=1e-3), pytest.approx(4.000018, abs=1e-6))
    assert contrast({0: eye}, {1: 2 * eye - 1}, ((0, 1),), 0.2) >= low


@pytest.mark.parametrize("temperature, expected", [(0.2, 0.238530), (1.0, 1.771106)])
def test_moco_v3_toy_2(temperature: float, expected: float) -> None:
    found = contrast({0: Q}, {1: K}, ((0, 1),), temperature)
    assert found == pytest.approx(expected, abs=1e-6)


def test_moco_v3_toy_2_both_directions() -> None:
    both = contrast({0: Q, 1: K}, {0: Q, 1: K}, ((0, 1), (1, 0)), 0.2)
    assert both == pytest.approx(0.473090, abs=1e-6)
    assert contrast({1: K}, {0: Q}, ((1, 0),), 0.2) == pytest.approx(0.234560, abs=1e-6)


def test_equal_embeddings_of_4096() -> None:
    same = torch.ones(4096, 1)
    both = contrast({0: same, 1: same}, {0: same, 1: same}, ((0, 1), (1, 0)), 0.2)
    assert both == pytest.approx(6.654213, abs=1e-5)


class Stub(torch.nn.Module):
    """(B, C, h, w) -> (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.layer = torch.nn.Linear(3, width)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layer(images.mean((2, 3)))
        return out


@pytest.mark.parametrize(
    "preset, width, projector, predictor",
    [
        ("none", 768, 20_987_904, 2_105_344),
        ("none", 384, 19_415_040, 2_105_344),
        ("resnet", 2048, 9_445_376, 2_105_344),
    ],
)
def test_the_heads_parameter_counts(
    preset: str, width: int, projector: int, predictor: int
) -> None:
    resolved = configure("moco-v3", None, Changes(preset=preset), "test")
    spec = BackboneSpec("stub", lambda channels, size, settings: Stub(width))
    encoder = build_method(resolved, Plan(batch_size=4), {"backbone": spec}).encoder
    assert sum(p.numel() for p in encoder.projector.parameters()) == projector
    assert encoder.predictor is not None
    assert sum(p.numel() for p in encoder.predictor.parameters()) == predictor
    assert not any(n.endswith("0.bias") for n, _ in encoder.projector.named_parameters())
    ends = [type(part[-1][-1]).__name__ for part in (encoder.projector, encoder.predictor)]
    assert ends == ["BatchNorm1d", "Linear" if preset == "resnet" else "BatchNorm1d"]


def test_the_sheet_s_schedules() -> None:
    resolved = configure("moco-v3", None, Changes(), "test")
    steps = 1_281_167 // 4096
    plan = Plan(dataset_size=1_281_167, batch_size=4096, steps_per_epoch=steps,
                total_steps=300 * steps)  # fmt: skip
    schedule = resolved.part("schedule")
    rate = schedule.factory(schedule.settings, plan)
    peak = resolved.part("optimizer").settings.peak(4096)
    expected = {0: 0, 1: 6e-5, 10: 6e-4, 20: 1.2e-3, 40: 2.4e-3, 105: 2.048528e-3, 170: 1.2e-3,
                235: 3.514719e-4, 300: 0}  # fmt: skip
    for epoch, value in expected.items():
        assert rate.rate(peak, epoch * steps) == pytest.approx(value, abs=1e-9)
    decay = resolved.part("target").settings.decay
    for share, value in {0: 0.99, 0.25: 0.99146447, 0.5: 0.995, 0.75: 0.99853553}.items():
        assert decay.value(share, 1) == pytest.approx(value, abs=1e-8)


def test_frozen_parts_never_move_and_are_never_decayed() -> None:
    sets = {"encoder.hidden": 16, "encoder.predictor_hidden": 16, "backbone.patch": 8,
            "views.size": 16}  # fmt: skip
    changes = Changes(preset="none", backbone="moco-v3-vit-tiny", set=sets)
    resolved = configure("moco-v3", None, changes, "test")
    plan = Plan(batch_size=8, image_size=16, total_steps=4)
    torch.manual_seed(0)
    method = build_method(resolved, plan).train()
    part = resolved.part("optimizer")
    moves = make_optimizer(part.factory, part.settings, method, plan, torch.device("cpu"))
    trunk = method.encoder.trunk
    before = {name: p.detach().clone() for name, p in trunk.named_parameters()}
    batch = Batch(torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8))
    for number in range(2):
        step = Step(number=number, total_steps=4)
        moves.zero_grad()
        method(batch, step).backward()
        method.gradients_ready(step)
        moves.step()
        method.update_target(step)
    still = {n for n, p in trunk.named_parameters() if torch.equal(p, before[n])}
    assert still == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    copy = method.components["target"].backbone()
    assert torch.equal(copy.patch_embed.proj.weight, trunk.patch_embed.proj.weight)


@pytest.mark.parametrize("backbone", ["resnet10-quarter", "test_vit"])
def test_a_short_run(tmp_path: Any, backbone: str) -> None:
    run = coview.train(
        "moco-v3", data="digits", out=tmp_path / "run", max_steps=3, batch_size=32, device="cpu",
        backbone=backbone, progress=False, evaluate=False,
        set={"encoder.hidden": 32, "encoder.predictor_hidden": 32},
    )  # fmt: skip
    assert run.step == 3
    assert 0 < run.value("loss") < 2 * 0.4 * (math.log(32) + 10)
