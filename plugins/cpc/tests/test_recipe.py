from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import coview
from coview import testing
from coview.nn.backbones import find_backbone
from coview.recipes.configure import Changes
from coview.recipes.resolve import Resolved
from coview.testing import has
from coview_cpc.norms import normalized

TINY = {
    "backbone.stem": "3x3",
    "views.flip_p": 0.0,
    "views.padding": 1,
    "optimizer.lr": 1e-3,
    "encoder.context": "gru",
    "encoder.context_layers": 1,
    "encoder.context_hidden": 64,
}


def resolved(method: str = "cpc", preset: str = "none") -> Resolved:
    return testing.resolved(method, preset)


def test_the_imagenet_recipe() -> None:
    has(
        resolved(),
        data__size=300,
        views="patch-grid",
        views__size=256,
        views__patch=64,
        views__stride=32,
        views__kept=60,
        views__grey=True,
        views__flip_p=0.5,
        encoder="autoregressive",
        encoder__context="masked-conv",
        encoder__norm="none",
        encoder__first=1,
        encoder__last=5,
        encoder__directions=1,
        encoder__dim=None,
        target="shared",
        negatives="patches",
        negatives__draws=0,
        loss="info-nce",
        loss__cosine=False,
        loss__temperature=1.0,
        backbone="cpc-resnet101",
        optimizer="adamw",
        optimizer__lr=2e-4,
        optimizer__weight_decay=0.0,
        schedule="constant",
        training__batch_size=512,
    )


def test_what_the_second_paper_changes() -> None:
    has(
        resolved("cpc-v2"),
        views__size=260,
        views__patch=80,
        views__stride=36,
        views__grey=False,
        views__drop_colours_p=1.0,
        encoder__norm="layer",
        encoder__directions=4,
        encoder__dim=64,
        encoder__scale=0.1,
        backbone="cpc-resnet161",
    )


def test_the_recipe_for_sound() -> None:
    has(
        resolved("cpc-audio"),
        views="frames",
        views__window=20480,
        encoder__context="gru",
        encoder__context_hidden=256,
        encoder__first=1,
        encoder__last=12,
        backbone="cpc-audio",
        optimizer__lr=2e-4,
        training__batch_size=64,
    )


@pytest.mark.parametrize("method", ["cpc", "cpc-v2"])
def test_small_images_are_cut_at_their_own_size(method: str) -> None:
    has(
        resolved(method, "small"),
        data__size=None,
        views__size=None,
        views__patch=None,
        views__kept=None,
        encoder__norm="layer",
        encoder__first=2,
        training__batch_size=32,
    )


@pytest.mark.parametrize(
    "name, blocks, width, millions",
    [
        ("cpc-resnet50", 13, 1024, None),
        ("cpc-resnet101", 30, 1024, None),
        ("cpc-resnet161", 53, 4096, 304),
    ],
)
def test_patch_encoders(name: str, blocks: int, width: int, millions: int | None) -> None:
    """ResNet-161: 46 blocks in its third stage, 0.3 G parameters."""
    from coview.nn.backbones import BackboneSettings

    with torch.device("meta"):
        net = find_backbone(name)[0](3, 64, BackboneSettings())
    assert sum(hasattr(module, "conv3") for module in net.modules()) == blocks
    assert net.num_features == width
    if millions:
        assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_patch_encoders_keep_their_scale_without_batch_norm(norm: str) -> None:
    from coview.nn.backbones import BackboneSettings

    torch.manual_seed(0)
    net = normalized(find_backbone("cpc-resnet101")[0](1, 16, BackboneSettings(stem="3x3")), norm)
    assert not any("BatchNorm" in type(module).__name__ for module in net.modules())
    with torch.no_grad():
        features = net(torch.randn(4, 1, 16, 16))
    assert features.shape == (4, 1024) and 0.05 < features.std() < 5


def trained(path: Path, method: str = "cpc", **rest: Any) -> Any:
    return coview.train(
        method,
        out=path,
        preset="small",
        backbone="resnet10-quarter",
        image_size=16,
        batch_size=32,
        epochs=rest.pop("epochs", 1),
        set=TINY | rest.pop("set", {}),
        progress=False,
        **rest,
    )


@pytest.mark.parametrize("method", ["cpc", "cpc-v2"])
def test_the_loss_starts_at_the_logarithm_and_falls(tmp_path: Path, method: str) -> None:
    run = trained(tmp_path / "run", method, max_steps=25, log_every=1, evaluate=False)
    losses = [entry["loss"] for entry in run.metrics if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(32 * 49), abs=1e-4)
    assert losses[-1] < losses[0] - 0.2


def test_the_exported_backbone_gives_a_vector_an_image(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", max_steps=2, evaluate=False)
    loaded = coview.load_backbone(run.path)
    images = torch.rand(3, 1, 16, 16)
    method = run.method.eval()
    crops = method.components["views"].evaluation_views(images).crops
    with torch.no_grad():
        expected = torch.stack([method.encoder.trunk(crop) for crop in crops]).mean(0)
        torch.testing.assert_close(loaded(images), expected)
    assert loaded.width == 128


def test_weights_start_another_run(tmp_path: Path) -> None:
    first = trained(tmp_path / "a", max_steps=2, evaluate=False)
    from coview.training.start import Request, start

    small = {"preset": "small", "backbone": "resnet10-quarter"}
    changes = Changes(image_size=16, batch_size=32, set=TINY, epochs=1, **small)
    second = start(
        Request(
            method="cpc",
            changes=changes,
            out=tmp_path / "b",
            settings={"init": str(first.path), "seed": 1},
        )
    )
    pairs = zip(
        first.method.encoder.trunk.parameters(),
        second.method.encoder.trunk.parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", max_steps=6, evaluate=False)
    trained(tmp_path / "parts", max_steps=3, evaluate=False)
    resumed = coview.train(resume=tmp_path / "parts", max_steps=6, progress=False)
    ours, theirs = whole.method.state_dict(), resumed.method.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
@pytest.mark.parametrize("method, floor", [("cpc", 0.62), ("cpc-v2", 0.6)])
def test_digits_are_learnt(tmp_path: Path, method: str, floor: float) -> None:
    """Far from the chance that a broken identity leaves it at."""
    run = trained(tmp_path / "run", method, epochs=5)
    assert run.value("knn_top1") > max(floor, run.value("untrained_knn_top1") + 0.05)
