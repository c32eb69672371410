"""Runs whose crops are cut from the images themselves, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coview.recipes.configure import Changes
from coview.testing import same
from coview.training.estimate import buffers
from coview.training.start import Request, start

Run = Callable[..., Any]
SIZES = ((90, 120), (120, 90), (70, 110), (130, 80))
BRIEF = ("--image-size", "72", "--device", "cpu", "--backbone", "resnet10-quarter")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 JPEG files of four sizes in two classes."""
    folder = tmp_path_factory.mktemp("photographs")
    for row in range(40):
        height, width = SIZES[row % 4]
        coarse = np.random.RandomState(row).randint(0, 256, (9, 12, 3)).astype(np.uint8)
        path = folder / f"class{row % 2}" / f"{row:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return folder


def options(folder: Path, out: Path, *more: str) -> tuple[str, ...]:
    small = ("--batch-size", "8", "--set", "views.size=32", "--log-every", "1", "--no-evaluate")
    return ("--data", str(folder), "--out", str(out), *BRIEF, *small, *more)


def checkpoint(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    return found


def losses(out: Path) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.parametrize("more", [(), ("--set", "data.cache=off"), ("--accumulate", "2")])
def test_a_resumed_run_equals_one_that_never_stopped(
    run: Run, photographs: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("train", "simclr", *options(photographs, whole, *more, "--max-steps", "6"))
    # Within an epoch of four steps, so that the rest of its batches must be the same.
    run("train", "simclr", *options(photographs, cut, *more, "--max-steps", "3"))
    run("train", "--resume", cut, "--max-steps", "6")
    one, two = checkpoint(whole), checkpoint(cut)
    assert same(one["method"], two["method"])
    assert same(one["optimizer"], two["optimizer"])
    assert losses(whole) == losses(cut)


def test_a_pack_of_whole_images_trains_as_its_files_do(
    run: Run, photographs: Path, tmp_path: Path
) -> None:
    shown = tomllib.loads(run("show", "simclr", "--toml", "--set", "views.size=32").stdout)
    side = shown["data"]["whole_side"]
    packed = tmp_path / "packed"
    told = run("pack", photographs, "--out", packed, "--size", "72", "--whole", side)
    assert (
        "32 train, 8 test images of 72 pixels, those to train on also at their own" in told.stdout
    )
    for name, data in (("files", photographs), ("pack", packed)):
        run("train", "simclr", *options(data, tmp_path / name, "--max-steps", "3"))
    assert losses(tmp_path / "pack") == losses(tmp_path / "files")
    weights = [checkpoint(tmp_path / name)["method"] for name in ("files", "pack")]
    assert same(*weights)
    # A run on the files goes on with the pack.
    run("train", "--resume", tmp_path / "files", "--data", packed, "--max-steps", "5")
    run("train", "--resume", tmp_path / "pack", "--max-steps", "5")
    assert losses(tmp_path / "pack") == losses(tmp_path / "files")


def test_what_has_one_size_is_not_packed_whole(run: Run, tmp_path: Path) -> None:
    asked = ("digits", "--out", tmp_path / "p", "--size", "8", "--whole", "60")
    (problem,) = run("pack", *asked, status=2).errors
    assert problem.startswith("--whole: digits gives its images at one size alone")


def test_reading_by_processes_changes_nothing(run: Run, photographs: Path, tmp_path: Path) -> None:
    for workers in "02":
        more = ("--workers", workers, "--set", "data.cache=off", "--max-steps", "2")
        run("train", "simsiam", *options(photographs, tmp_path / workers, *more))
    assert losses(tmp_path / "0") == losses(tmp_path / "2")


def test_two_processes_train_as_one(run: Run, photographs: Path, tmp_path: Path) -> None:
    asked = {
        name: options(photographs, tmp_path / name, "--max-steps", "3", "--set", "data.cache=off")
        for name in ("one", "two")
    }
    run("train", "simclr", *asked["one"])
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [sys.executable, *launcher, "-m", "coview", "train", "simclr", *asked["two"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    weights = [load_file(tmp_path / name / "backbone.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        assert torch.allclose(weights[1][name].float(), value.float(), atol=1e-3), name


@pytest.mark.parametrize("method", ["instdisc", "cmc", "byol", "swav", "dino"])
def test_other_methods_cut_from_whole_images_too(
    run: Run, photographs: Path, tmp_path: Path, method: str
) -> None:
    narrow = {
        "swav": (
            *("--set", "views.size=(32, 16)", "--set", "encoder.prototypes=16"),
            *("--set", "encoder.norm_groups=1"),  # eight need two images each
        ),
        "dino": ("--preset", "resnet", "--set", "encoder.dim=32", "--set", "encoder.hidden=32"),
        "instdisc": ("--set", "target.draws=8"),
        "cmc": ("--set", "target.draws=8"),
    }
    more = ("--max-steps", "1", *narrow.get(method, ()))
    if method == "dino":
        more = (*more, "--set", "views.size=(32, 32, 16)", "--set", "views.count=(1, 1, 2)")
    run("train", method, *options(photographs, tmp_path / "run", *more))
    assert len(losses(tmp_path / "run")) == 1
    recipe = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())
    assert recipe["data"]["fit"] == "whole"


def test_show_says_which(run: Run) -> None:
    for more, fit in (((), "whole"), (("--set", "data.fit=square"), "square")):
        shown = tomllib.loads(run("show", "simclr", "--toml", *more).stdout)
        assert shown["data"]["fit"] == fit
        assert f"fit = {fit}" in " ".join(run("show", "simclr", *more).stdout.split())
    assert tomllib.loads(run("show", "simclr", "--toml").stdout)["data"]["whole_side"] == 792


def test_a_run_of_before_goes_on_with_squares(run: Run, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    square = ("--set", "data.fit=square", "--max-steps", "2")
    run("train", "simclr", *options(photographs, out, *square))
    state = checkpoint(out)
    texts = (out / "recipe.toml").read_text(), state["identity"]["recipe"]
    assert all(text.count('\nfit = "square"') == 1 for text in texts)
    file, identity = (text.replace('\nfit = "square"', "") for text in texts)
    (out / "recipe.toml").write_text(file)
    state["identity"]["recipe"] = identity
    torch.save(state, out / "checkpoints" / "last.pt")
    run("train", "--resume", out, "--max-steps", "3")
    assert len(losses(out)) == 3


def test_a_picture_of_views(run: Run, photographs: Path, tmp_path: Path) -> None:
    wanted = ("--data", photographs, "--image-size", "72", "--images", "3")
    for fit in ("whole", "square"):
        run("views", "simclr", *wanted, "--out", tmp_path / fit, "--set", f"data.fit={fit}")
    whole, square = (np.asarray(Image.open(tmp_path / fit)) for fit in ("whole", "square"))
    assert whole.shape == square.shape
    assert not np.array_equal(whole, square)


def test_the_estimate_knows_the_batches_of_whole_images(photographs: Path, tmp_path: Path) -> None:
    mean = sum(height * width for height, width in SIZES) / 4
    found = []
    for number, (fit, cache) in enumerate((("square", "off"), ("whole", "off"), ("whole", "auto"))):
        changes = Changes(
            backbone="resnet10-quarter",
            image_size=72,
            batch_size=8,
            set={"data.fit": fit, "data.cache": cache},
        )
        out = tmp_path / str(number)
        made = start(
            Request(
                changes=changes,
                out=out,
                settings={"data": str(photographs), "device": "cpu", "evaluate": False},
            )
        )
        found.append(buffers(made))
        made.hold.close()
    assert found[0] == found[2] == 0
    assert found[1] == pytest.approx(3 * 8 * mean * 3, rel=0.02)
