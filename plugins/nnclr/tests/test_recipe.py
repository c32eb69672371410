"""The paper's numbers, and a short run."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import coview
from coview import Plan
from coview.testing import has, resolved


def test_the_papers_recipe() -> None:
    has(
        resolved("nnclr"),
        backbone="resnet50",
        encoder="predictor",
        encoder__dim=256,
        encoder__hidden=2048,
        encoder__layers=3,
        encoder__output_norm="batch",
        encoder__predictor_hidden=4096,
        encoder__predictor_output_norm="none",
        target="shared",
        negatives="none",
        loss="nnclr",
        loss__temperature=0.1,
        wrap="nearest-neighbours",
        wrap__size=98304,
        wrap__takes="first",
        training__batch_size=4096,
        training__epochs=1000,
        optimizer="lars",
        optimizer__lr=0.3,
        optimizer__lr_rule="linear",
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-6,
        optimizer__eta=1e-3,
        schedule="cosine",
        schedule__warmup_epochs=10,
        schedule__warmup_start=0,
        schedule__final=0,
        views="byol",
        views__crop_scale=(0.08, 1.0),
        views__jitter=(0.4, 0.4, 0.2, 0.1),
        views__blur_p=1.0,
        views__second_blur_p=0.1,
        views__solarize_p=0.0,
        views__second_solarize_p=0.2,
    )
    assert resolved("nnclr").part("optimizer").settings.peak(4096) == pytest.approx(4.8)


def test_the_cifar_recipe() -> None:
    has(
        resolved("nnclr", "small"),
        backbone="resnet18",
        backbone__stem="3x3",
        backbone__stem_padding=2,
        backbone__zero_init_last=False,
        encoder__dim=256,
        encoder__hidden=2048,
        encoder__layers=3,
        encoder__predictor_hidden=4096,
        loss__temperature=0.2,
        wrap__size=65536,
        training__batch_size=256,
        training__epochs=1000,
        optimizer="larc",
        optimizer__lr=0.4,
        optimizer__lr_rule="linear",
        optimizer__weight_decay=1e-5,
        optimizer__eta=0.02,
        optimizer__clip=True,
        optimizer__exclude_norm_and_bias=True,
        schedule__warmup_epochs=10,
        schedule__warmup_start=3e-5,
        schedule__warmup_count="steps",
        schedule__warmup_closed=True,
        views__interpolation="bicubic",
        views__order=("crop", "jitter", "grey", "blur", "solarize", "flip"),
        views__blur_p=0,
        views__second_blur_p=0,
        views__second_solarize_p=0.2,
    )


def test_the_papers_heads() -> None:
    method = coview.build(coview.recipe("nnclr"), Plan(batch_size=8))
    layer = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    heads = (method.encoder.projector, method.encoder.predictor)
    kinds = [[type(m) for m in h.modules() if not isinstance(m, nn.Sequential)] for h in heads]  # type: ignore[union-attr]
    assert kinds == [[*layer, *layer, nn.Linear, nn.BatchNorm1d], [*layer, nn.Linear]]
    widths = [
        [(m.in_features, m.out_features) for m in h.modules() if isinstance(m, nn.Linear)]  # type: ignore[union-attr]
        for h in heads
    ]
    assert widths == [[(2048, 2048), (2048, 2048), (2048, 256)], [(256, 4096), (4096, 256)]]


def test_a_few_steps_of_the_tiny_preset(tmp_path: Path) -> None:
    """With real keys among random ones, neighbours come nearer."""
    run = coview.train(
        "nnclr",
        "digits",
        out=tmp_path / "run",
        preset="tiny",
        batch_size=64,
        max_steps=7,
        log_every=1,
        evaluate=False,
        progress=False,
        device="cpu",
    )
    rows = [row for row in run.metrics if "neighbour_similarity" in row]
    assert len(rows) == 7
    assert rows[0]["neighbour_similarity"] + 0.15 < rows[-1]["neighbour_similarity"]
    support = run.method.components["wrap-nearest-neighbours"]
    assert support.pointer.item() == 7 * 64
