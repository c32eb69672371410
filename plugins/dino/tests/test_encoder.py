"""The head, clipping, freezing and dropped branches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers.drop import DropPath

import coview
from coview import Batch, Plan, RequestError, Step
from coview.method.module import build_method
from coview.nn.backbones import BackboneSettings, BackboneSpec, find_backbone
from coview.nn.heads import PrototypeHead, UnitRows
from coview.nn.prototype_encoder import clip_each
from coview.optim.groups import make_optimizer, set_weight_decay
from coview.recipes.configure import Changes, configure

SMALL = {"encoder.hidden": 16, "encoder.bottleneck": 8, "encoder.dim": 12}


def method(preset: str = "none", seed: int = 0, **sets: Any) -> tuple[Any, Plan, Any]:
    changes = Changes(
        preset=preset,
        backbone="test_vit",
        set={**SMALL, "backbone.patch": 8, "views.size": ["none", "none", 16],
             "views.count": [1, 1, 2], **sets},
    )  # fmt: skip
    resolved = configure("dino", None, changes, "test")
    plan = Plan(batch_size=4, steps_per_epoch=3, total_steps=30, image_size=32)
    torch.manual_seed(seed)
    return resolved, plan, build_method(resolved, plan).train()


def batch() -> Batch:
    make = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=make, dtype=torch.uint8)
    return Batch(images, torch.arange(4))


@pytest.mark.parametrize("width, mlp", [(384, 5_509_376), (768, 6_295_808)])
def test_the_sheet_s_parameter_counts(width: int, mlp: int) -> None:
    head = PrototypeHead(width, 2048, 256, 65536, 3, batch_norm=False, fixed_length=True)
    assert sum(p.numel() for p in head.mlp.parameters()) == mlp
    assert head.last.weight.numel() == 16_777_216
    assert head.last.length.numel() == 65_536
    assert not head.last.length.requires_grad
    assert head.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.mlp[0].bias.any()


@pytest.mark.parametrize("name, millions, heads", [("vit_small_patch16_224", 21.67, 6)])
def test_the_sheet_s_backbone(name: str, millions: float, heads: int) -> None:
    factory, _ = find_backbone(name)
    net = factory(3, 224, BackboneSettings(drop_path=0.1)).eval()
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert {block.attn.num_heads for block in net.blocks} == {heads}
    drops = [getattr(block.drop_path1, "drop_prob", 0.0) for block in net.blocks]
    assert drops == pytest.approx([0.1 * i / 11 for i in range(12)], abs=1e-6)
    tokens = []
    net.blocks[0].register_forward_pre_hook(lambda module, args: tokens.append(args[0].shape[1]))
    with torch.no_grad():
        for side in (224, 96):
            assert net(torch.zeros(1, 3, side, side)).shape == (1, 384)
    assert tokens == [197, 37]


def test_logits_are_cosines_where_lengths_are_fixed() -> None:
    head = PrototypeHead(6, 5, 4, 9, 3, batch_norm=False, fixed_length=True).double()
    features = torch.randn(7, 6, dtype=torch.float64) * 50
    logits = head(features)
    assert logits.abs().max() <= 1
    bottleneck = head.mlp(features)
    for i in range(7):
        for k in range(9):
            a, b = bottleneck[i], head.last.weight[k]
            assert logits[i, k].item() == pytest.approx((a @ b / a.norm() / b.norm()).item())


def test_a_learned_length_scales_its_row() -> None:
    layer = UnitRows(3, 2, fixed_length=False)
    x = torch.randn(5, 3)
    before = layer(x)
    with torch.no_grad():
        layer.length[1] = 2.5
        layer.weight[0] *= 7
    assert torch.allclose(layer(x), before * torch.tensor([1.0, 2.5]), atol=1e-6)


def test_dino_toy_3_clipping_is_by_tensor() -> None:
    holder = torch.nn.Module()
    holder.a = torch.nn.Parameter(torch.zeros(2))
    holder.b = torch.nn.Parameter(torch.zeros(2))
    holder.c = torch.nn.Parameter(torch.zeros(2))
    holder.d = torch.nn.Parameter(torch.zeros(2))
    holder.a.grad, holder.b.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 12.0])
    holder.c.grad = torch.tensor([1.0, -2.0])
    clip_each(holder, 3.0)
    assert holder.a.grad.tolist() == pytest.approx([1.8, 2.4], abs=1e-5)
    assert holder.b.grad.tolist() == pytest.approx([0.0, 3.0], abs=1e-5)
    assert holder.c.grad.tolist() == [1.0, -2.0]
    assert holder.d.grad is None


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_last_layer_rests_for_an_epoch_and_is_not_even_decayed(optimizer: str) -> None:
    from coview.registry import find

    _, plan, built = method()
    maker = find("optimizers", optimizer).load()
    moves = make_optimizer(
        maker, maker.Settings(lr=0.1, weight_decay=0.1), built, plan, torch.device("cpu")
    )
    last = built.encoder.projector.last
    for number in range(5):
        step = Step(number=number, steps_per_epoch=3, total_steps=30)
        before = [p.detach().clone() for p in (last.weight, last.length)]
        moves.zero_grad()
        built(batch(), step).backward()
        built.gradients_ready(step)
        norms = [p.grad.norm() for p in built.parameters() if p.grad is not None]
        assert max(norms) <= 3.0001
        moves.step()
        built.update_target(step)
        still = [torch.equal(p, q) for p, q in zip((last.weight, last.length), before, strict=True)]
        assert still == [number < 3] * 2


def test_only_the_student_drops_branches_and_the_step_decides_which() -> None:
    _, _, built = method(**{"backbone.drop_path": 0.9})
    student = [m.drop_prob for m in built.encoder.modules() if isinstance(m, DropPath)]
    teacher = [m.drop_prob for m in built.components["target"].modules() if isinstance(m, DropPath)]
    assert max(student) == pytest.approx(0.9)
    assert set(teacher) == {0.0}
    state = torch.random.get_rng_state()
    losses = [built(batch(), Step(number=n)).item() for n in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(state, torch.random.get_rng_state())
    keys = [
        built.components["target"]
        .encode_targets(
            built.components["views"].generate_views(batch(), Step(component="views")),
            None,
            batch(),
            Step(),
        )
        .keys[0]
        for _ in range(2)
    ]
    assert torch.equal(*keys)


def test_teacher_starts_equal_and_has_the_learned_lengths() -> None:
    _, _, built = method(**{"encoder.norm_last_layer": False})
    online = dict(built.encoder.named_parameters())
    copies = dict(built.components["target"].network.named_parameters())
    assert set(copies) == set(online)
    assert all(torch.equal(copies[name], online[name]) for name in online)
    assert online["projector.last.length"].requires_grad
    assert not any(p.requires_grad for p in copies.values())
    assert built.backbone() is built.components["target"].network.trunk


def test_weight_decay_follows_the_sheet_and_spares_norms_and_biases() -> None:
    resolved, plan, built = method()
    part = resolved.part("optimizer")
    moves = make_optimizer(part.factory, part.settings, built, plan, torch.device("cpu"))
    decayed, spared = moves.param_groups
    if spared["scheduled_decay"]:
        decayed, spared = spared, decayed
    names = {p: name for name, p in built.encoder.named_parameters()}
    for p in decayed["params"]:
        assert p.ndim >= 2, names[p]
    assert all(p.ndim == 1 for p in spared["params"])
    assert {"trunk.pos_embed", "trunk.cls_token", "projector.last.length"} <= {
        names[p] for p in decayed["params"]
    }
    expected = {0: 0.04, 0.25: 0.09272078, 0.5: 0.22, 0.75: 0.34727922}
    total = 125_100
    for share, value in expected.items():
        set_weight_decay(
            moves,
            part.settings,
            Step(number=int(share * total), steps_per_epoch=1251, total_steps=total),
        )
        assert decayed["weight_decay"] == pytest.approx(value, abs=1e-8)
        assert spared["weight_decay"] == 0
    last = Step(number=total - 1, steps_per_epoch=1251, total_steps=total)
    set_weight_decay(moves, part.settings, last)
    assert decayed["weight_decay"] == pytest.approx(0.4, abs=1e-6)


def test_the_sheet_s_learning_rates() -> None:
    resolved = configure("dino", None, Changes(), "test")
    plan = Plan(dataset_size=1_281_167, batch_size=1024, steps_per_epoch=1251, total_steps=125_100)
    schedule = resolved.part("schedule")
    rate = schedule.factory(schedule.settings, plan)
    peak = resolved.part("optimizer").settings.peak(1024)
    expected = {0: 0, 1: 1.5988e-7, 6255: 0.00100008, 12509: 0.002, 12510: 0.002,
                68805: 0.0010005, 125_099: 1.00000039e-6}  # fmt: skip
    for number, value in expected.items():
        assert rate.rate(peak, number) == pytest.approx(value, rel=5e-5, abs=1e-12)
    decay = resolved.part("target").settings.decay
    for share, value in {0: 0.996, 0.25: 0.99658579, 0.5: 0.998, 0.75: 0.99941421}.items():
        assert decay.value(share, 1) == pytest.approx(value, abs=1e-8)


def test_crops_of_both_sizes_take_two_calls() -> None:
    shapes: list[tuple[int, ...]] = []

    class Counting(torch.nn.Module):
        num_features = 4

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 4)
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(images.shape))
            out: torch.Tensor = self.norm(self.layer(images.mean((2, 3))))
            return out

    resolved = configure("dino", None, Changes(preset="none", set=SMALL), "test")
    plan = Plan(batch_size=4, image_size=256)
    spec = BackboneSpec("counting", lambda channels, size, settings: Counting())
    built = build_method(resolved, plan, {"backbone": spec})
    images = torch.zeros(4, 3, 256, 256, dtype=torch.uint8)
    built(Batch(images, torch.arange(4)), Step())
    student, teacher = shapes[:2], shapes[2:]
    assert student == [(2 * 4, 3, 224, 224), (10 * 4, 3, 96, 96)]
    assert teacher == [(2 * 4, 3, 224, 224)]


@pytest.mark.parametrize("backbone", ["resnet10-quarter", "test_vit"])
def test_a_short_run_evaluates_the_teacher(tmp_path: Any, backbone: str) -> None:
    run = coview.train(
        "dino", data="digits", out=tmp_path / "run", max_steps=3, batch_size=32, device="cpu",
        backbone=backbone, progress=False, evaluate=False,
        set={**SMALL, "views.size": 32, "target.decay": 0.5, "evaluates": "target"},
    )  # fmt: skip
    assert run.step == 3
    exported = coview.load_backbone(run.path).backbone.state_dict()
    teacher = run.method.components["target"].network.trunk.state_dict()
    student = run.method.encoder.trunk.state_dict()
    assert all(torch.equal(exported[name], value) for name, value in teacher.items())
    assert any(not torch.equal(exported[name], value) for name, value in student.items())


def test_views_that_are_no_whole_patches_are_refused_when_the_method_is_built() -> None:
    with pytest.raises(RequestError, match=r"patches of 8 pixels, but there are views of \[12\]"):
        method(**{"views.size": [32, 32, 12]})
