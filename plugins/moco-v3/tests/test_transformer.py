"""Vision transformers: positions, initial weights, what is frozen, whose weights fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import coview
from coview import RequestError
from coview.nn.backbones import BackboneSettings, find_backbone
from coview.weights.exported import attention_heads, load_backbone
from coview_moco_v3.transformer import positions, vit_base, vit_small, vit_tiny

TINY = BackboneSettings(patch=4)


def test_moco_v3_toy_3() -> None:
    made = positions(2, 2, 8)
    assert made.shape == (1, 5, 8)
    assert made[0, 0].tolist() == [0] * 8
    first = [0, 0, 1, 1]
    moved = [0.841471, 0.01, 0.540302, 0.99995]
    assert made[0, 1].tolist() == pytest.approx(first + first, abs=1e-6)
    assert made[0, 2].tolist() == pytest.approx(first + moved, abs=1e-6)
    assert made[0, 3].tolist() == pytest.approx(moved + first, abs=1e-6)


@pytest.mark.parametrize("rows, columns, width", [(3, 5, 16), (14, 14, 384), (6, 6, 768)])
def test_positions_by_slow_loops(rows: int, columns: int, width: int) -> None:
    made = positions(rows, columns, width)[0, 1:].double()
    quarter = width // 4
    assert made.norm(dim=1).tolist() == pytest.approx([math.sqrt(width / 2)] * len(made), rel=1e-5)
    for row in range(rows):
        for column in range(columns):
            token = made[row * columns + column]
            for j in range(0, quarter, max(1, quarter // 7)):
                omega = 10000 ** (-j / quarter)
                expected = [f(x * omega) for x in (row, column) for f in (math.sin, math.cos)]
                found = [token[part * quarter + j].item() for part in range(4)]
                assert found == pytest.approx(expected, abs=1e-6)


def test_positions_need_four_equal_parts() -> None:
    with pytest.raises(RequestError, match="divisible by 4"):
        positions(2, 2, 10)


@pytest.mark.parametrize(
    "factory, width, qkv, patch", [(vit_small, 384, 0.088388, 0.072169),
                                   (vit_base, 768, 0.0625, 0.0625)]
)  # fmt: skip
def test_initial_weights_and_what_is_frozen(
    factory: Any, width: int, qkv: float, patch: float
) -> None:
    torch.manual_seed(0)
    net = factory(3, 224, BackboneSettings()).requires_grad_(False)
    assert net.num_features == width
    assert attention_heads(net) == [12] * 12
    attention = net.blocks[0].attn.qkv
    for part in attention.weight.chunk(3):
        assert 0.999 * qkv < part.abs().max() <= qkv + 1e-6
        assert part.std() == pytest.approx(qkv / math.sqrt(3), rel=0.01)
    projection = net.patch_embed.proj
    assert 0.999 * patch < projection.weight.abs().max() <= patch + 1e-6
    fc = net.blocks[0].mlp.fc1.weight
    bound = math.sqrt(6 / (width + 4 * width))
    assert 0.999 * bound < fc.abs().max() <= bound + 1e-6
    assert not any(m.bias.any() for m in net.modules() if isinstance(m, torch.nn.Linear))
    assert net.cls_token.std() == pytest.approx(1e-6, rel=0.2)
    trained = factory(3, 224, BackboneSettings()).named_parameters()
    frozen = {name for name, p in trained if not p.requires_grad}
    assert frozen == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert torch.equal(net.pos_embed, positions(14, 14, width))
    assert net.norm.eps == 1e-6 and attention.bias is not None


def test_smaller_crops_have_interpolated_positions() -> None:
    """96 pixels on a network of 224: 37 tokens; at its own size nothing is interpolated."""
    torch.manual_seed(0)
    net = vit_small(3, 224, BackboneSettings()).eval()
    seen = []
    net.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        for side in (224, 96):
            assert net(torch.zeros(1, 3, side, side)).shape == (1, 384)
    large, small = seen
    assert (large.shape[1], small.shape[1]) == (197, 37)
    # Black images and a bias of zero leave positions alone.
    assert torch.allclose(large[:, 1:], net.pos_embed[:, 1:])
    corners = small[0, 1:].view(6, 6, 384)
    own = net.pos_embed[0, 1:].view(14, 14, 384)
    assert (corners[0, 0] - own[0, 0]).norm() < (corners[0, 0] - own[13, 13]).norm() / 2
    assert (corners[5, 5] - own[13, 13]).norm() < (corners[5, 5] - own[0, 0]).norm() / 2
    assert corners.norm(dim=-1).std() > 0 or not torch.allclose(corners, own[:6, :6])


def test_sizes_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(RequestError, match=r"backbone\.patch"):
        vit_tiny(1, 28, BackboneSettings())
    assert vit_tiny(1, 28, TINY)(torch.zeros(2, 1, 28, 28)).shape == (2, 192)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A step of MoCo v3 and of DINO on transformers whose tensors have equal shapes."""
    folder = tmp_path_factory.mktemp("runs")
    head = {"moco-v3": {"encoder.hidden": 16, "encoder.predictor_hidden": 16},
            "dino": {"encoder.hidden": 16, "encoder.dim": 16}}  # fmt: skip
    backbones = {"moco-v3": "moco-v3-vit-small", "dino": "vit_small_patch16_224"}
    for method, backbone in backbones.items():
        coview.train(
            method, data="digits", out=folder / method, max_steps=1, batch_size=4, epochs=1,
            backbone=backbone, device="cpu", progress=False, evaluate=False, set=head[method],
        )  # fmt: skip
    return {method: folder / method for method in backbones}


@pytest.mark.parametrize("method, heads", [("moco-v3", 12), ("dino", 6)])
def test_exported_weights_record_the_heads(runs: dict[str, Path], method: str, heads: int) -> None:
    with safe_open(runs[method] / "backbone.safetensors", framework="pt") as opened:
        meta = json.loads(opened.metadata()["coview"])
    assert meta["heads"] == [heads] * 12
    loaded = coview.load_backbone(runs[method])
    assert attention_heads(loaded.backbone) == [heads] * 12
    assert loaded(torch.zeros(1, 1, 32, 32)).shape == (1, 384)


@pytest.mark.parametrize("method, other", [("moco-v3", "dino"), ("dino", "moco-v3")])
def test_weights_of_equal_shape_and_other_heads_are_refused(
    runs: dict[str, Path], method: str, other: str, tmp_path: Path
) -> None:
    names = {"moco-v3": "moco-v3-vit-small", "dino": "vit_small_patch16_224"}
    factory, _ = find_backbone(names[method])
    network = factory(1, 32, BackboneSettings())
    mine = load_backbone(runs[method], factory(1, 32, BackboneSettings()))
    assert {k: v.shape for k, v in mine.backbone.state_dict().items()} == {
        k: v.shape for k, v in load_backbone(runs[other]).backbone.state_dict().items()
    }
    with pytest.raises(RequestError, match=r"attention heads\s+a block|attention heads"):
        load_backbone(runs[other], network)
    with pytest.raises(RequestError, match="compute different features"):
        coview.train(
            method, data="digits", out=tmp_path / "run", max_steps=1, batch_size=4,
            backbone=names[method], init=runs[other], device="cpu", progress=False,
        )  # fmt: skip
    coview.train(
        method, data="digits", out=tmp_path / "fits", max_steps=1, batch_size=4, evaluate=False,
        backbone=names[method], init=runs[method], device="cpu", progress=False,
        set={"encoder.hidden": 16},
    )  # fmt: skip


def test_for_comparison_the_patch_projection_is_trained() -> None:
    made = {}
    for name in ("moco-v3-vit-tiny", "moco-v3-vit-tiny-learned"):
        torch.manual_seed(0)
        made[name] = find_backbone(name)[0](1, 16, TINY)
    frozen, learned = made.values()
    assert all(
        torch.equal(a, b) for a, b in zip(frozen.parameters(), learned.parameters(), strict=True)
    )
    fixed = [{n for n, p in net.named_parameters() if not p.requires_grad} for net in made.values()]
    assert fixed[0] - fixed[1] == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert fixed[1] == {"pos_embed"}
