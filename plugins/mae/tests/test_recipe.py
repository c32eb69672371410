"""The recipe's numbers are the paper's."""

from __future__ import annotations

from typing import Any

import pytest

from coview.testing import has, promises, resolved


def test_the_imagenet_recipe() -> None:
    found = resolved("mae")
    has(
        found,
        backbone="mae-vit-large",
        views="instdisc",
        views__count=1,
        views__crop_scale=(0.2, 1.0),
        views__crop_ratio=(0.75, 4 / 3),
        views__interpolation="bicubic",
        views__flip_p=0.5,
        views__order=("crop", "flip"),
        views__normalize=True,
        wrap="random-mask",
        wrap__ratio=0.75,
        encoder="masked-autoencoder",
        encoder__width=512,
        encoder__blocks=8,
        encoder__heads=16,
        target="patch-pixels",
        target__normalise=True,
        negatives="none",
        loss="squared-error",
        loss__reduction="mean",
        optimizer="adamw",
        optimizer__lr=1.5e-4,
        optimizer__lr_rule="linear",
        optimizer__beta1=0.9,
        optimizer__beta2=0.95,
        optimizer__weight_decay=0.05,
        optimizer__exclude_norm_and_bias=True,
        schedule="cosine",
        schedule__warmup_epochs=40,
        schedule__final=0.0,
        schedule__per="step",
        training__epochs=800,
        training__batch_size=4096,
        training__evaluates="online",
        probe__epochs=90,
        probe__batch_size=16384,
        probe__lars=True,
        probe__weight_decay=0.0,
    )
    probe = found.part("probe").settings
    assert probe.lr * probe.scale(16384) == pytest.approx(6.4)
    assert found.part("optimizer").settings.peak(4096) == pytest.approx(2.4e-3)


@pytest.mark.parametrize("promise", promises("mae", fast=True), ids=str)
def test_promises(promise: Any) -> None:
    promise()
