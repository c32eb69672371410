"""The recipe's numbers are the paper's and the released code's."""

from __future__ import annotations

from typing import Any

import pytest

import coview
from coview.testing import has, promises, resolved


def test_the_imagenet_recipe() -> None:
    has(
        resolved("densecl"),
        backbone="resnet50",
        views="simclr",
        views__symmetric=False,
        views__crop_scale=(0.2, 1.0),
        views__jitter=(0.4, 0.4, 0.4, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=0.5,
        views__blur_sigma=(0.1, 2.0),
        views__order=("crop", "jitter", "grey", "blur", "flip"),
        encoder="dense",
        encoder__dim=128,
        encoder__hidden=2048,
        encoder__grid=None,
        encoder__norm_groups=8,
        target="momentum",
        target__decay=0.999,
        target__shuffle=True,
        negatives="queue",
        negatives__size=65536,
        loss="dense-info-nce",
        loss__temperature=0.2,
        loss__dense_weight=0.5,
        optimizer="sgd",
        optimizer__lr=0.03,
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-4,
        schedule="cosine",
        schedule__per="epoch",
        training__batch_size=256,
        training__epochs=200,
    )


def test_all_but_heads_and_loss_is_moco_v2_s() -> None:
    dense, moco = coview.recipe("densecl"), coview.recipe("moco-v2")
    for name in ("views", "target", "negatives", "backbone", "optimizer", "schedule"):
        assert getattr(dense, name) == getattr(moco, name), name


@pytest.mark.parametrize("promise", promises("densecl", fast=True), ids=str)
def test_promises(promise: Any) -> None:
    promise()


def test_a_run_compares_images_and_places(tmp_path: Any) -> None:
    """The map of the tiny preset has several places, and both losses count."""
    run = coview.train(
        "densecl", "digits", preset="tiny", batch_size=32, max_steps=12, out=tmp_path / "run",
        evaluate=False, progress=False, log_every=1, set={"encoder.hidden": 32},
    )  # fmt: skip
    logged = [row for row in run.metrics if "loss_place" in row]
    assert len(logged) == 12
    for row in logged:
        both = 0.5 * row["loss_image"] + 0.5 * row["loss_place"]
        assert row["loss"] == pytest.approx(both, rel=1e-4)
    assert run.method.encoder.maps(run.method.evaluation_views(run.data.train.images[:2]), (0,))[
        0
    ].shape[2:] == (4, 4)
