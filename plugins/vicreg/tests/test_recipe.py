"""The papers' numbers, heads and rates, and a short run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import coview
from coview import Layout, Plan
from coview.method.module import build_method
from coview.nn.backbones import BackboneSpec
from coview.optim.groups import make_optimizer, set_rate
from coview.recipes.configure import Changes, configure
from coview.testing import has, resolved

METHODS = ("vicreg", "barlow-twins")


@pytest.mark.parametrize("method", METHODS)
def test_what_both_papers_share(method: str) -> None:
    has(
        resolved(method),
        backbone="resnet50",
        backbone__zero_init_last=True,
        encoder="expander",
        encoder__dim=8192,
        encoder__hidden=8192,
        encoder__layers=3,
        encoder__norm_views="each",
        target="shared",
        negatives="none",
        training__batch_size=2048,
        training__epochs=1000,
        optimizer="lars",
        optimizer__lr=0.2,
        optimizer__lr_rule="linear",
        optimizer__momentum=0.9,
        optimizer__eta=1e-3,
        optimizer__weight_decay=1e-6,
        optimizer__exclude_norm_and_bias=True,
        optimizer__rate_in_momentum=False,
        optimizer__clip=False,
        schedule="cosine",
        schedule__per="step",
        schedule__warmup_epochs=10,
        schedule__warmup_start=0,
        views="byol",
        views__order=("crop", "flip", "jitter", "grey", "blur", "solarize"),
        views__crop_scale=(0.08, 1.0),
        views__interpolation="bicubic",
        views__flip_p=0.5,
        views__jitter=(0.4, 0.4, 0.2, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=1.0,
        views__second_blur_p=0.1,
        views__blur_sigma=(0.1, 2.0),
        views__solarize_p=0.0,
        views__second_solarize_p=0.2,
        views__normalize=True,
        probe="sgd",
        probe__epochs=100,
        probe__batch_size=256,
        probe__weight_decay=1e-6,
        probe__drops=(),
    )


def test_vicreg() -> None:
    has(
        resolved("vicreg"),
        loss="vicreg",
        loss__invariance=25,
        loss__variance=25,
        loss__covariance=1,
        loss__margin=1,
        loss__epsilon=1e-4,
        encoder__hidden_bias=True,
        encoder__plain_rate=1.0,
        schedule__final=0.002,
        probe__lr=0.02,
    )


def test_barlow_twins() -> None:
    has(
        resolved("barlow-twins"),
        loss="barlow-twins",
        loss__redundancy=0.0051,
        loss__epsilon=1e-5,
        encoder__hidden_bias=False,
        schedule__final=0.0016,
        probe__lr=0.3,
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_cifar_recipes(method: str) -> None:
    found = resolved(method, "small")
    has(
        found,
        backbone="resnet18",
        backbone__stem="3x3",
        backbone__stem_padding=2,
        backbone__zero_init_last=False,
        encoder__dim=2048,
        encoder__hidden=2048,
        encoder__layers=3,
        encoder__hidden_bias=True,
        encoder__plain_rate=1.0,
        training__batch_size=256,
        training__epochs=1000,
        optimizer="larc",
        optimizer__lr=0.3,
        optimizer__lr_rule="linear",
        optimizer__weight_decay=1e-4,
        optimizer__eta=0.02,
        optimizer__clip=True,
        schedule__warmup_epochs=10,
        schedule__warmup_start=3e-5,
        schedule__warmup_count="steps",
        schedule__warmup_closed=True,
        views__interpolation="bicubic",
        views__order=("crop", "jitter", "grey", "blur", "solarize", "flip"),
        schedule__final=0,
        views__jitter=(0.4, 0.4, 0.2, 0.1),
        views__blur_p=0,
        views__second_blur_p=0,
    )
    if method == "vicreg":
        has(found, views__crop_scale=(0.2, 1), views__solarize_p=0.1, views__second_solarize_p=0.1)
        has(found, loss__variance=50)
    else:
        has(found, views__crop_scale=(0.08, 1), views__solarize_p=0, views__second_solarize_p=0.2)
        assert found.part("loss").weight == 0.1


def expander(width: int = 2048, **chosen: Any) -> Any:
    class Trunk(nn.Module):
        """Pixels as features of any width."""

        num_features = width

    layout = Layout(((2, 2),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))
    spec = BackboneSpec("pixels", lambda c, s, _: Trunk())
    plan = Plan(batch_size=8, backbone=spec, layout=layout)
    return coview.component("encoders", "expander", plan=plan, **chosen)


def test_the_papers_heads() -> None:
    """Three layers: weights and, in VICReg's first two, biases; batch norm has two a column."""
    made = expander(hidden_bias=False)
    kinds = [type(m) for m in made.projector.modules() if not isinstance(m, nn.Sequential)]
    layer = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [*layer, *layer, nn.Linear]
    weights = 2048 * 8192 + 2 * 8192 * 8192
    count = sum(p.numel() for p in made.projector.parameters())
    assert count == weights + 4 * 8192
    vicreg = expander(16, dim=8, hidden=8)
    biases = [name for name, _ in vicreg.projector.named_parameters() if name.endswith("0.bias")]
    assert biases == ["0.0.bias", "1.0.bias"]


def test_barlow_twins_moves_biases_and_norms_more_slowly() -> None:
    """At batch size 2048 weights have a rate of 1.6 and the others one of 0.0384."""
    changes = Changes(
        preset="none",
        backbone="resnet10-quarter",
        set={"encoder.dim": 8, "encoder.hidden": 8},
    )
    plan = Plan(batch_size=2048, image_size=32)
    method = build_method(configure("barlow-twins", None, changes, "test"), plan)
    part = resolved("barlow-twins").part("optimizer")
    made = make_optimizer(part.factory, part.settings, method, plan, torch.device("cpu"))
    for peak in (1.6, 0.8):
        set_rate(made, peak)
        rates = {p: group["lr"] for group in made.param_groups for p in group["params"]}
        for name, parameter in method.named_parameters():
            scale = 0.0048 / 0.2 if parameter.ndim == 1 else 1.0
            assert rates[parameter] == pytest.approx(peak * scale), name
    plain = [group for group in made.param_groups if group["lr"] < 0.1]
    assert plain and all(g["weight_decay"] == 0 and not g["adapted"] for g in plain)


def test_vicreg_moves_all_at_one_rate() -> None:
    assert expander(16, dim=8, hidden=8).parameter_groups() == {}


@pytest.mark.parametrize(
    "method, peak, final", [("vicreg", 1.6, 0.002), ("barlow-twins", 1.6, 0.0016)]
)
def test_the_learning_rate_over_training(method: str, peak: float, final: float) -> None:
    found = resolved(method)
    assert found.part("optimizer").settings.peak(2048) == pytest.approx(peak)
    part = found.part("schedule")
    plan = Plan(dataset_size=2048 * 7, batch_size=2048, steps_per_epoch=7, total_steps=7000)
    schedule = part.factory(part.settings, plan)
    for number, rate in (
        (0, 0.0),
        (35, peak / 2),
        (70, peak),
        (3535, (peak + final) / 2),
        (7000, final),
    ):
        assert schedule.rate(peak, number) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_of_the_tiny_preset(method: str, tmp_path: Path) -> None:
    run = coview.train(
        method,
        "digits",
        out=tmp_path / "run",
        preset="tiny",
        batch_size=64,
        max_steps=6,
        log_every=1,
        evaluate=False,
        progress=False,
        device="cpu",
        set={"optimizer.lr": 0.001, "schedule.warmup_epochs": 0},
    )
    losses = [row["loss"] for row in run.metrics if "loss" in row]
    assert len(losses) == 6 and losses[-1] < losses[0]
    named = {"invariance", "variance", "covariance"} if method == "vicreg" else set()
    assert named <= set(run.metrics[0])
