from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import coview
from coview import Encoded, Plan, Step, testing
from coview.optim.schedules import Cosine
from coview.recipes.resolve import Resolved
from coview.testing import has

IMAGENET = 1_281_167


def resolved(method: str = "simclr-v2", preset: str = "none") -> Resolved:
    return testing.resolved(method, preset)


def test_the_imagenet_recipe() -> None:
    has(
        resolved(),
        views="simclr",
        views__jitter=(0.8, 0.8, 0.8, 0.2),
        views__blur_p=0.5,
        encoder="projection",
        encoder__layers=3,
        encoder__dim=128,
        encoder__hidden=None,
        encoder__bias=False,
        encoder__output_norm="batch-no-shift",
        target="shared",
        negatives="in-batch",
        negatives__views="all",
        loss="info-nce",
        loss__temperature=0.1,
        backbone="resnet152-3x-sk",
        optimizer="lars",
        optimizer__weight_decay=1e-4,
        optimizer__momentum=0.9,
        training__epochs=800,
        training__batch_size=4096,
    )


def test_the_memory_is_mocos() -> None:
    found = resolved("simclr-v2-memory")
    has(found, target="momentum", target__decay=0.999, negatives="in-batch,queue")
    assert found.parts["negatives"][1].settings.size == 65536
    assert found.parts["negatives"][1].package == "coview-moco"


def test_the_small_preset() -> None:
    has(
        resolved(preset="small"),
        backbone="resnet18",
        backbone__stem="3x3",
        views__blur_p=0.0,
        views__jitter=(0.4, 0.4, 0.4, 0.1),
        encoder__layers=3,
        loss__temperature=0.5,
        optimizer__lr=1.0,
        optimizer__lr_rule="linear",
        optimizer__weight_decay=1e-4,
        training__epochs=1000,
        training__batch_size=512,
    )


def test_learning_rate() -> None:
    """T7.4 and T7.6."""
    found = resolved()
    peak = found.part("optimizer").settings.peak(4096)
    assert peak == pytest.approx(6.4)
    steps = IMAGENET // 4096
    plan = Plan(
        dataset_size=IMAGENET, batch_size=4096, steps_per_epoch=steps, total_steps=steps * 800
    )
    schedule = Cosine(found.part("schedule").settings, plan)
    # The sheet's 12,511 steps: warm-up counts images, 40 x 1,281,167 / 4096.
    assert schedule.warmup == 12511
    assert schedule.rate(peak, 0) == 0.0
    assert schedule.rate(peak, 12511) == pytest.approx(6.4)


def test_the_memory_stands_beside_the_batch() -> None:
    """T7.5, smaller: equal scores cost the logarithm of 2 B - 1 + K candidates."""
    batch, size = 8, 40
    found = resolved("simclr-v2-memory")
    plan = Plan(dataset_size=1000, batch_size=batch, dim=4)
    one = torch.full((batch, 4), 0.5)
    keys, own = dict.fromkeys((0, 1), one), dict.fromkeys((0, 1), torch.arange(batch))
    encoded = Encoded(keys, keys, own, ((0, 1), (1, 0)), {})
    targets = coview.Targets(keys, own)
    in_batch: Any = coview.component("negatives", "in-batch", plan=plan)
    queue: Any = coview.component("negatives", "queue", plan=plan, size=size)
    queue.rows.fill_(0.5)
    loss: Any = coview.component("losses", "info-nce", **found.recipe.loss.settings)
    parts = (in_batch.draw_negatives(targets), queue.draw_negatives(targets, Step()))
    value = loss.compute_loss(encoded, targets, parts, Step()).item()
    assert value == pytest.approx(math.log(2 * batch - 1 + size), abs=1e-5)


@pytest.mark.slow
def test_digits_are_learnt_better_than_by_chance_initialisation(tmp_path: Any) -> None:
    run = coview.train(
        "simclr-v2",
        out=tmp_path / "run",
        preset="small",
        backbone="resnet10-quarter",
        epochs=20,
        batch_size=64,
        progress=False,
        set={
            "backbone.stem": "7x7",
            "views.flip_p": 0.0,
            "views.crop_scale": [0.3, 1.0],
            "encoder.hidden": 512,
            "schedule.warmup_epochs": 4.0,
        },
    )
    assert run.value("knn_top1") > 0.8
