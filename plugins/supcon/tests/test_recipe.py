"""The paper's numbers, what it asks of the data, and a short run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import coview
from coview import Batch, Plan, RequestError
from coview.testing import has, resolved


def test_the_released_codes_recipe() -> None:
    found = resolved("supcon")
    has(
        found,
        backbone="resnet50",
        encoder="projection",
        encoder__dim=128,
        encoder__layers=1,
        encoder__output_norm="none",
        encoder__bias=False,
        encoder__init_std=0.01,
        target="shared",
        negatives="none",
        loss="supcon",
        loss__temperature=0.1,
        training__batch_size=6144,
        training__epochs=350,
        optimizer="lars",
        optimizer__lr=0.4,
        optimizer__lr_rule="linear",
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-3,
        optimizer__eta=1e-3,
        optimizer__rate_in_momentum=True,
        schedule="cosine",
        schedule__warmup_epochs=12,
        schedule__final=0,
        views="simclr",
        views__count=2,
        views__crop_scale=(0.08, 1.0),
    )
    assert found.part("loss").weight == 0.1


def test_the_second_released_codes_cifar_recipe() -> None:
    found = resolved("supcon", "small")
    has(
        found,
        backbone="resnet50",
        backbone__stem="3x3",
        encoder__dim=128,
        encoder__layers=2,
        encoder__hidden=None,
        encoder__norm="none",
        encoder__output_norm="none",
        encoder__bias=True,
        encoder__init_std=None,
        loss__temperature=0.1,
        training__batch_size=1024,
        training__epochs=1000,
        optimizer="sgd",
        optimizer__lr=0.5,
        optimizer__lr_rule="none",
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-4,
        views__crop_scale=(0.2, 1.0),
        views__jitter=(0.4, 0.4, 0.4, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=0.0,
        views__normalize=True,
        probe="sgd",
        probe__epochs=100,
        probe__batch_size=512,
        probe__drops=(0.6, 0.75, 0.9),
        probe__factor=0.2,
    )
    assert found.part("loss").weight == pytest.approx(0.1 / 0.07)
    probe = found.part("probe").settings
    assert probe.lr * probe.scale(512) == pytest.approx(5.0)


def test_the_cifar_learning_rate_over_training() -> None:
    """0.01 to 0.5 in ten epochs; then by epoch from 1 on, to 0.0005."""
    part = resolved("supcon", "small").part("schedule")
    plan = Plan(dataset_size=48_000, batch_size=1000, steps_per_epoch=48, total_steps=48_000)
    schedule = part.factory(part.settings, plan)
    for number, rate in ((0, 0.01), (240, 0.255), (480, 0.49985), (48 * 499, 0.25025)):
        assert schedule.rate(0.5, number) == pytest.approx(rate, abs=1e-4)
    assert schedule.rate(0.5, 48 * 600) == schedule.rate(0.5, 48 * 600 + 47)
    assert schedule.rate(0.5, 48 * 999) == pytest.approx(0.0005, abs=1e-6)


def test_heads() -> None:
    for preset, kinds in (("none", [nn.Linear]), ("small", [nn.Linear, nn.ReLU, nn.Linear])):
        plan = Plan(batch_size=8, image_size=32)
        method = coview.build(coview.recipe("supcon"), plan, preset=preset)
        head = method.encoder.projector
        assert [type(m) for m in head.modules() if not isinstance(m, nn.Sequential)] == kinds
        last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
        assert (last.in_features, last.out_features) == (2048, 128)


OPTIONS: dict[str, Any] = {
    "preset": "tiny",
    "batch_size": 64,
    "log_every": 1,
    "evaluate": False,
    "progress": False,
    "device": "cpu",
}


def test_a_few_steps_of_the_tiny_preset(tmp_path: Path) -> None:
    chosen = {"schedule.warmup_epochs": 0}
    run = coview.train("supcon", "digits", out=tmp_path / "run", max_steps=8, set=chosen, **OPTIONS)
    losses = [row["loss"] for row in run.metrics if "loss" in row]
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.1


def test_micro_batches_have_the_labels_of_their_images(tmp_path: Path) -> None:
    seen: list[Batch] = []

    class Watching:
        @coview.hookimpl
        def update_target(self, batch: Batch) -> None:
            seen.append(batch)

    run = coview.train(
        "supcon",
        "digits",
        out=tmp_path / "run",
        max_steps=1,
        accumulate=2,
        observe=[Watching()],
        **OPTIONS,
    )
    ((batch,), labels) = seen, run.data.train.labels
    assert labels is not None and len(batch.indices) == 64
    assert torch.equal(batch.fields["labels"], labels[batch.indices])


def test_data_without_labels_are_refused(tmp_path: Path) -> None:
    pixels = torch.zeros(160, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(RequestError) as caught:
        coview.train("supcon", pixels, out=tmp_path / "run", **OPTIONS)
    (problem,) = caught.value.problems
    assert "loss 'supcon' of package coview-supcon needs the field 'labels'" in problem
    assert "digits" in problem
    assert not (tmp_path / "run" / "run.json").exists()
