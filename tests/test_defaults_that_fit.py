"""Defaults for the data and the machine at hand: preset, batch, memory, and an honest estimate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

import coview
from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import find_recipe
from coview.recipes.tables import FEW_IMAGES
from coview.training import build
from coview.training.estimate import Estimate, duration, estimate
from coview.training.fitting import cut, limit_of_data, limit_of_memory
from coview.training.request import Request
from coview.training.start import rehearse

Run = Callable[..., Any]
METHODS = ("instdisc", "cpc", "cmc", "moco", "simclr", "moco-v2", "simclr-v2", "swav", "byol")
METHODS += ("simsiam", "moco-v3", "dino")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four photographs of several sizes, in two classes."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(24):
        height, width = random.integers(70, 120, 2)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        place = folder / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.jpg")
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_a_few_photographs(method: str, photos: Path, run: Run) -> None:
    answer = run("train", method, "--data", photos, "--max-steps", 1, "--no-evaluate", "--out", "r")
    assert "note: 24 images are few: preset tiny at 64 pixels." in answer.stderr
    assert "training" in answer.stderr and "reading" in answer.stderr


@pytest.mark.parametrize(
    ("images", "preset"), [(20, "tiny"), (1_999, "tiny"), (2_000, "small"), (9_999, "small")]
)
def test_a_small_set_gets_a_small_preset(images: int, preset: str) -> None:
    resolved = configure("simclr", 256, Changes(), "test", images)
    assert (resolved.preset, resolved.data.size) == (preset, 64)
    assert any(f"{images} images are few" in notice for notice in resolved.notices)


@pytest.mark.parametrize("images", [None, 10_000, 1_281_167])
def test_a_large_set_or_one_of_unknown_size_gets_the_papers_recipe(images: int | None) -> None:
    resolved = configure("simclr", 256, Changes(), "test", images)
    assert (resolved.preset, resolved.data.size) == (None, 256)


@pytest.mark.parametrize(
    "changes", [Changes(preset="none"), Changes(image_size=224), Changes(set={"data.size": 224})]
)
def test_what_was_asked_for_is_kept(changes: Changes) -> None:
    resolved = configure("simclr", 256, changes, "test", 20)
    assert resolved.preset is None and resolved.data.size != 64


def test_a_small_preset_makes_large_images_small_unless_a_size_is_asked_for() -> None:
    assert configure("simclr", 256, Changes(preset="tiny"), "test").data.size == 64
    assert configure("simclr", 28, Changes(preset="tiny"), "test").data.size == 28
    asked = Changes(preset="tiny", image_size=96)
    assert configure("simclr", 256, asked, "test").data.size == 96


def test_the_rule_is_about_presets_that_there_are() -> None:
    without = attrs.evolve(find_recipe("simclr"), presets={})
    assert configure(without, 256, Changes(), "test", min(FEW_IMAGES.values())).preset is None


def resolved_for(batch: int | None = None, method: str = "simclr") -> Any:
    return configure(method, 32, Changes(preset="tiny", batch_size=batch), "test")


@pytest.mark.parametrize(
    ("images", "processes", "batch"), [(255, 1, 64), (20, 1, 8), (100, 3, 48), (8, 1, 4)]
)
def test_the_batch_is_cut_to_half_of_the_data(images: int, processes: int, batch: int) -> None:
    resolved = resolved_for()
    limit = limit_of_data(resolved, images, processes)
    assert limit is not None and limit.batch == batch
    fitted = cut(resolved, limit)
    assert fitted.training.batch_size == fitted.recipe.batch_size == batch
    assert fitted.origins["batch_size"] == "data"
    assert fitted.notices[-1] == (
        f"The batch is {batch}, not the recipe's 128: there are {images} images. Negatives are "
        f"the batch's other images, so there are {batch - 1} for each."
    )


def test_a_batch_that_fits_or_was_asked_for_is_not_cut() -> None:
    assert limit_of_data(resolved_for(), 256, 1) is None
    assert limit_of_data(resolved_for(batch=128), 20, 1) is None
    assert limit_of_data(resolved_for(), 3, 1) is None  # no batch of two: refused later
    needs = Estimate(step_seconds=1, bytes=2**40, steps=1)
    assert limit_of_memory(resolved_for(batch=128), 128, needs, 2**30) is None
    assert limit_of_memory(resolved_for(), 128, needs, None) is None
    assert limit_of_memory(resolved_for(), 128, needs, 2**40) is None


def test_only_methods_with_negatives_of_the_batch_are_told_of_fewer() -> None:
    resolved = resolved_for(method="moco-v2")
    assert (
        cut(resolved, limit_of_data(resolved, 20, 1)).notices[-1].endswith("there are 20 images.")
    )


@pytest.mark.parametrize(("method", "told"), [("simclr", True), ("moco-v2", False)])
def test_negatives_of_a_part_of_the_batch_are_told(method: str, told: bool, photos: Path) -> None:
    def notices(parts: int) -> list[str]:
        changes = Changes(preset="tiny", batch_size=8, accumulate=parts)
        run = rehearse(Request(method=method, data=str(photos), changes=changes))
        return [notice for notice in run.resolved.notices if "parts of the batch" in notice]

    said = (
        "negatives are the other images of one of 4 parts of the batch: 1 for each image, "
        "where the whole batch would give 7"
    )
    assert notices(4) == ([said] if told else [])
    assert notices(1) == []


def test_the_batch_is_cut_to_the_memory(
    monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "is_small", lambda run: False)
    request = Request(method="simclr", data=str(photos), out=tmp_path / "r")
    needed = rehearse(request).estimate
    assert needed is not None
    monkeypatch.setattr(build, "free_memory", lambda device: needed.bytes * 5 // 8)
    run = rehearse(request)
    assert run.plan.batch_size == 4 and run.resolved.training.batch_size == 4
    (said,) = (notice for notice in run.resolved.notices if "The batch is" in notice)
    assert "not the recipe's 128" in said and "GiB" in said
    assert not (tmp_path / "r").exists()


def test_an_estimate_leaves_the_run_as_it_was_and_counts_views(photos: Path) -> None:
    def estimated(method: str, **changes: Any) -> tuple[Any, Estimate]:
        asked = Changes(preset="tiny", batch_size=8, **changes)
        run = rehearse(Request(method=method, data=str(photos), changes=asked))
        before = {name: value.clone() for name, value in run.method.state_dict().items()}
        random = torch.get_rng_state()
        found = estimate(run)
        assert torch.equal(random, torch.get_rng_state())
        assert all(torch.equal(before[n], v) for n, v in run.method.state_dict().items())
        assert all(p.grad is None for p in run.method.parameters())
        return run, found

    run, found = estimated("simclr")
    weights = 4 * sum(p.numel() * 4 for p in run.method.parameters())
    _, larger = estimated("simclr", image_size=128)
    # Four times the pixels are four times what is kept, and views of half a size a quarter.
    kept = found.bytes - weights
    assert 3.8 < (larger.bytes - weights) / kept < 4.2
    assert found.steps == run.last_step and found.seconds == found.step_seconds * found.steps


def test_the_paper_recipe_on_a_processor_is_told_to_take_long(run: Run, photos: Path) -> None:
    options = ("--preset", "none", "--backbone", "resnet18", "--dry-run")
    answer = run("train", "simclr", "--data", photos, *options, "--epochs", 100_000).stdout
    (line,) = (line for line in answer.splitlines() if line.startswith("estimate"))
    assert "days in all" in line and line.endswith("trains in minutes: --preset tiny")
    assert answer.splitlines()[-1].startswith("It would run.")


def test_an_estimate_on_a_busy_processor_says_what_one_thread_takes(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coview.training import estimate

    counts: list[int] = []
    measure = estimate._image

    def watched(run: Any) -> tuple[float, float]:
        counts.append(torch.get_num_threads())
        return measure(run)

    monkeypatch.setattr(estimate, "_image", watched)
    monkeypatch.setattr(estimate.threads, "crowded", lambda before, device: "BUSY")
    asked = ("train", "simclr", "--data", photos, "--device", "cpu", "--threads", 2, "--dry-run")
    said = run(*asked).stdout
    assert counts == [2, 1]
    (line,) = [line for line in said.splitlines() if line.startswith("BUSY")]
    assert line.startswith("BUSY, so the estimate is worth little. With one thread a step takes ")
    assert line.endswith(" s: --threads 1")


def test_a_dry_run_says_the_threads_that_were_asked_for(run: Run, photos: Path) -> None:
    asked = ("train", "simclr", "--data", photos, "--device", "cpu", "--dry-run")
    for count, said in ((1, "cpu, 1 thread ("), (3, "cpu, 3 threads (")):
        assert said in run(*asked, "--threads", count).stdout


def test_all_warm_up_is_told_before_training(run: Run, photos: Path) -> None:
    answer = run("train", "simclr", "--data", photos, "--epochs", 2, "--dry-run").stdout
    assert "all 4 steps are warm-up: train for more epochs" in answer
    assert "warm-up" not in run("train", "simclr", "--data", photos, "--dry-run").stdout


def test_a_run_too_short_to_be_compiled_says_so(run: Run, photos: Path) -> None:
    start = ("train", "simclr", "--data", photos, "--dry-run")
    assert "120 steps hardly win back" in run(*start, "--compile").stdout
    assert "win back" not in run(*start, "--compile", "--epochs", 1000).stdout
    assert "win back" not in run(*start, "--max-steps", 30).stdout


def test_verbose_is_refused_without_a_dry_run(refused: Callable[..., list[str]]) -> None:
    (problem,) = refused("train", "simclr", "-v")
    assert problem.startswith("--verbose prints the settings of a --dry-run")


def test_python_fits_too(photos: Path, tmp_path: Path) -> None:
    run = coview.train(
        "byol", photos, max_steps=1, evaluate=False, out=tmp_path / "r", progress=False
    )
    assert run.resolved.preset == "tiny" and run.plan.batch_size == 8
    # A run resumes with the batch that was cut.
    again = coview.train(resume=tmp_path / "r", max_steps=2, evaluate=False, progress=False)
    assert again.plan.batch_size == 8 and again.step == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (40, "40 s"), (119.4, "119 s"), (180, "3 minutes"), (7_300, "2 hours")],
)
def test_durations_are_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("method", ["cmc", "cpc"])
def test_views_of_other_kinds_are_estimated_too(photos: Path, method: str) -> None:
    asked = Changes(preset="tiny", batch_size=8)
    found = estimate(rehearse(Request(method=method, data=str(photos), changes=asked)))
    assert found.seconds > 0 and found.bytes > 0
