"""The recipe's numbers are those of the released command for ViT-S/16."""

from __future__ import annotations

from typing import Any

import pytest

import coview
from coview.testing import has, promises, resolved


def test_the_imagenet_recipe() -> None:
    found = resolved("ibot")
    has(
        found,
        backbone="vit_small_patch16_224",
        backbone__drop_path=0.1,
        views="multi-crop",
        views__count=(1, 1, 10),
        views__size=(None, None, 96),
        views__crop_scale=((0.25, 1.0), (0.25, 1.0), (0.05, 0.25)),
        views__jitter=(0.4, 0.4, 0.2, 0.1),
        views__blur_p=(1.0, 0.1, 0.5),
        views__solarize_p=(0.0, 0.2, 0.0),
        wrap="block-mask",
        wrap__ratio=(0.0, 0.3),
        wrap__spread=(0.0, 0.2),
        wrap__aspect=(0.3, 1 / 0.3),
        wrap__from_epoch=0.0,
        encoder="masked-tokens",
        encoder__dim=8192,
        encoder__hidden=2048,
        encoder__bottleneck=256,
        encoder__layers=3,
        encoder__norm="none",
        encoder__norm_last_layer=False,
        encoder__freeze_last_epochs=1.0,
        encoder__clip=3.0,
        target="momentum",
        target__decay=coview.cosine(0.996, 1.0),
        loss="self-distillation,token-distillation",
        optimizer="adamw",
        optimizer__lr=5e-4,
        optimizer__lr_rule="linear",
        optimizer__weight_decay=coview.cosine(0.04, 0.4),
        optimizer__exclude_norm_and_bias=True,
        schedule="cosine",
        schedule__warmup_epochs=10,
        schedule__final=1e-6,
        training__epochs=800,
        training__batch_size=1024,
        training__evaluates="target",
    )
    for part in found.parts["loss"]:
        assert part.weight == 1.0 and part.settings.student_temperature == 0.1
        assert part.settings.centre_momentum == 0.9
        given = part.settings.teacher_temperature
        for epoch, expected in ((0, 0.04), (29, 0.07), (400, 0.07)):
            step = coview.Step(number=epoch * 10, steps_per_epoch=10, total_steps=8000)
            assert given.at(step) == pytest.approx(expected)


@pytest.mark.parametrize("promise", promises("ibot", fast=True), ids=str)
def test_promises(promise: Any) -> None:
    promise()


def test_both_losses_are_logged_and_summed(tmp_path: Any) -> None:
    run = coview.train(
        "ibot", "digits", preset="tiny", batch_size=16, max_steps=2, out=tmp_path / "run",
        evaluate=False, progress=False, log_every=1, set={"encoder.hidden": 16},
    )  # fmt: skip
    rows = [row for row in run.metrics if "loss" in row]
    parts = [[value for name, value in row.items() if "distillation" in name] for row in rows]
    assert rows and all(len(two) == 2 for two in parts)
    for row, two in zip(rows, parts, strict=True):
        assert row["loss"] == pytest.approx(sum(two), rel=1e-4)
