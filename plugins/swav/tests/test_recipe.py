"""The recipe's numbers, and a run."""

from __future__ import annotations

import math

import pytest

import coview
from coview import Plan
from coview.recipes.configure import Changes, configure

IMAGES = 1_281_167


def rates(preset: str, batch: int, epochs: int):
    resolved = configure("swav", None, Changes(preset=preset), "test")
    steps = IMAGES // batch
    plan = Plan(
        dataset_size=IMAGES, batch_size=batch, steps_per_epoch=steps, total_steps=epochs * steps
    )
    part, peak = resolved.part("schedule"), resolved.part("optimizer").settings.peak(batch)
    schedule = part.factory(part.settings, plan)
    return lambda number: schedule.rate(peak, number)


def test_the_sheet_s_learning_rates_at_batch_4096() -> None:
    rate = rates("none", 4096, 100)
    expected = {
        0: 0.3, 1: 0.301443, 1560: 2.550721, 3119: 4.8, 3120: 4.8, 17160: 2.4024,
    }  # fmt: skip
    for number, value in expected.items():
        assert rate(number) == pytest.approx(value, abs=1e-6)
    assert rate(31199) == pytest.approx(0.0048000150, abs=1e-9)


def test_the_sheet_s_learning_rates_at_batch_256() -> None:
    rate = rates("batch-256", 256, 400)
    assert rate(0) == 0.6
    last = 400 * (IMAGES // 256)
    assert rate(last // 2) == pytest.approx((0.6 + 0.0006) / 2)
    assert rate(last - 1) == pytest.approx(0.0006, rel=1e-6)


def test_the_paper_s_recipe() -> None:
    recipe = configure("swav", None, Changes(), "test").recipe
    assert (recipe.epochs, recipe.batch_size) == (800, 4096)
    assert (recipe.target.name, recipe.negatives[0].name) == ("shared", "none")
    encoder = recipe.encoder.settings
    assert (encoder["dim"], encoder["hidden"], encoder["prototypes"]) == (128, 2048, 3000)
    assert (encoder["freeze_steps"], encoder["norm_views"]) == (313, "joint")
    assert recipe.views.settings["crop_scale"] == [[0.14, 1.0], [0.05, 0.14]]
    assert recipe.views.settings["jitter"] == [0.8, 0.8, 0.8, 0.2]
    assert recipe.optimizer.name == "larc"
    small = configure("swav", None, Changes(preset="batch-256"), "test").recipe
    queue = small.negatives[0].settings
    assert (queue["size"], queue["from_epoch"], queue["per_view"]) == (3840, 15.0, True)
    assert small.encoder.settings["freeze_steps"] == 5005


@pytest.mark.parametrize("preset", ["small", "small-multi-crop"])
def test_a_short_run_on_digits(tmp_path, preset: str) -> None:
    run = coview.train(
        "swav", data="digits", out=tmp_path / "run", max_steps=4, batch_size=32, seed=1,
        backbone="resnet10-quarter", preset=preset, device="cpu", progress=False, evaluate=False,
        set={"encoder.prototypes": 20, "encoder.hidden": 32, "negatives.size": 64,
             "negatives.from_epoch": 0.0},
    )  # fmt: skip
    assert run.step == 4
    loss = run.value("loss")
    assert 0 < loss < 2 * math.log(20)
    assert 0 < run.value("assignment_entropy") <= run.value("assignment_mean_entropy") <= 1 + 1e-6
    assert 0 < run.value("assignment_information") < 1
    assert 0 < run.value("assignment_divergence") < loss
