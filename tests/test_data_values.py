"""Transparency, ranges, orientation: the same in training, packs, evaluation and embeddings."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coview.data.base import DataSettings
from coview.data.sources import open_source
from coview.testing import same

Run = Callable[..., Any]
SIDE = 32


@pytest.fixture(scope="module")
def stickers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of two classes on a transparent ground that hides noise."""
    folder, random = tmp_path_factory.mktemp("stickers"), np.random.RandomState(0)
    for number in range(40):
        values = random.randint(0, 256, (SIDE, SIDE, 4), np.uint8)
        values[..., 3] = 0
        kind = number % 2
        values[8:24, 8 + 4 * kind : 16 + 8 * kind] = (200, 40 * kind, 0, 255)
        (folder / "ab"[kind]).mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / "ab"[kind] / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of 12 bits in files of 16."""
    folder, random = tmp_path_factory.mktemp("xrays"), np.random.RandomState(0)
    for number in range(40):
        values = random.randint(0, 4096, (SIDE, SIDE)).astype(np.uint16)
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / "ab"[number % 2] / f"{number:02}.png")
    return folder


def trained(run: Run, data: Any, tiny: tuple[str, ...], *more: Any, out: str = "r") -> Path:
    run("train", "simclr", "--data", data, *tiny, "--batch-size", 8, "--max-steps", 2,
        "--no-evaluate", *more, "--out", out)  # fmt: skip
    return Path(out)


def facts(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_text(encoding="utf-8"))["data"]


def rows(run: Run, *arguments: Any) -> np.ndarray:
    run("embed", *arguments, "--out", "e.npy")
    return np.load("e.npy")


def test_what_was_read_how_is_recorded_and_repeated(
    run: Run, tiny: tuple[str, ...], stickers: Path
) -> None:
    path = trained(run, stickers, tiny, "--set", "data.background=black")
    wanted = {"background": "black", "orientation": "apply", "range": "auto"}
    assert facts(path)["reading"] == wanted
    assert facts(path)["summary"]["modes"] == {"RGBA": 32}
    assert facts(path)["summary"]["labels"] == {"a": 20, "b": 20}
    own = rows(run, path, "--data", stickers)
    assert np.array_equal(own, rows(run, path, "--data", stickers, "--set", "data.background=#000"
                                    "000"))  # fmt: skip
    assert not np.allclose(own, rows(run, path, "--data", stickers, "--set",
                                     "data.background=white"))  # fmt: skip
    # A pack keeps the background too, also when it is read under another setting.
    run("pack", stickers, "--out", "packed", "--set", "data.background=black", "--workers", 0)
    assert np.array_equal(own, rows(run, path, "--data", "packed"))
    packed = open_source("packed").load(DataSettings(background="red"))
    assert packed.reading == wanted
    assert any("packed with data.background = black: red has no" in n for n in packed.notes)


def test_evaluation_leaves_out_what_training_left_out(
    run: Run, tiny: tuple[str, ...], photos: Path
) -> None:
    path = trained(run, photos, tiny, "--set", "data.holdout=0.5")
    result = run("evaluate", "knn", path, "-k", 5, "--json").json
    assert (result["train_images"], result["test_images"]) == (30, 30)
    path = trained(run, photos, tiny, "--set", "data.holdout=0", out="all")
    assert facts(path)["summary"]["found"] == 60
    assert run("evaluate", "knn", path, "-k", 5, "--json").json["test_images"] == 12


def test_a_run_of_an_older_version_goes_on_as_it_began(
    run: Run, tiny: tuple[str, ...], stickers: Path
) -> None:
    older = ("--set", "data.background=drop", "--set", "data.orientation=ignore")
    more = ("--set", "data.range=dtype", "--set", "data.holdout=0.2")
    path = trained(run, stickers, tiny, *older, *more)
    whole = trained(run, stickers, tiny, *older, *more, "--max-steps", 4, out="whole")
    # As version 0.1 wrote it: none of these settings was known.
    new = ("background", "orientation", "range", "max_pixels", "bad_limit")

    def older_text(text: str) -> str:
        lines = [line for line in text.splitlines() if line.partition(" =")[0] not in new]
        assert "background" not in tomllib.loads("\n".join(lines))["data"]
        return "\n".join(lines)

    file, last = path / "recipe.toml", path / "checkpoints" / "last.pt"
    file.write_text(older_text(file.read_text(encoding="utf-8")), encoding="utf-8")
    state = torch.load(last, weights_only=True)
    state["identity"]["recipe"] = older_text(state["identity"]["recipe"])
    torch.save(state, last)
    run("train", "--resume", path, "--max-steps", 4, "--no-evaluate", "--device", "cpu")
    states = [torch.load(p / "checkpoints" / "last.pt", weights_only=True) for p in (whole, path)]
    assert states[1]["step"] == 4 and same(states[0]["method"], states[1]["method"])
    refused_change = run("train", "--resume", path, "--max-steps", 5, "--no-evaluate", "--device",
                         "cpu", "--set", "data.background=white", status=2)  # fmt: skip
    assert "data.background differs from the saved run ('drop', now 'white')" in (
        refused_change.stderr
    )


def test_twelve_bits_are_used_and_said(run: Run, tiny: tuple[str, ...], xrays: Path) -> None:
    path = trained(run, xrays, tiny)
    low, high = map(float, facts(path)["reading"]["range"].split(","))
    assert 0 <= low < 20 and 4070 < high <= 4095
    (note,) = [note for note in facts(path)["notes"] if "more than 8 bits" in note]
    assert "run from 0 to 4095" in note and "--set data.range=LOW,HIGH" in note
    # Another set, whose own values would say otherwise, is read with the run's range.
    dark = Path("dark")
    dark.mkdir()
    for number in range(4):
        Image.fromarray(np.full((SIDE, SIDE), 200 * number, np.uint16)).save(dark / f"{number}.png")
    answer = run("embed", path, "--data", dark, "--out", "e.npy")
    assert "more than 8 bits" not in answer.stderr
    other = run("embed", path, "--data", dark, "--out", "f.npy", "--set", "data.range=measure")
    assert "run from 0 to 600" in other.stderr
    assert not np.allclose(np.load("e.npy"), np.load("f.npy"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.range=5,1", "LOW below HIGH"),
        ("data.range=wide", "must be LOW,HIGH, dtype, measure or auto"),
        ("data.background=whit", "a colour's name or #RRGGBB"),
        ("data.background=#12", "a colour's name or #RRGGBB"),
        ("data.orientation=up", "apply or ignore"),
        ("data.holdout=1", "between 0 and 0.9"),
        ("data.bad_limit=-1", "at least 0"),
        ("data.max_pixels=0", "above 0"),
        ("data.rang=dtype", "Did you mean"),
    ],
)
def test_wrong_settings_are_named(
    refused: Callable[..., list[str]], stickers: Path, setting: str, said: str
) -> None:
    (problem,) = refused("pack", stickers, "--out", "p", "--set", setting)
    assert said in problem


def test_the_limit_of_bad_images_is_a_setting(run: Run, tiny: tuple[str, ...]) -> None:
    for number in range(20):
        Path("some").mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (number, 0, 0)).save(f"some/{number:02}.png")
    for number in (3, 5, 7):
        Path(f"some/{number:02}.png").write_bytes(b"no image")
    common = ("train", "simclr", "--data", "some", *tiny, "--batch-size", 8, "--max-steps", 1,
              "--no-evaluate")  # fmt: skip
    answer = run(*common, "--out", "a", status=1)
    assert "more than the 1% allowed (--set data.bad_limit=SHARE_OR_NUMBER)" in answer.stderr
    run(*common, "--out", "b", "--set", "data.bad_limit=0.2")
    run(*common, "--out", "c", "--set", "data.bad_limit=3")
    answer = run(*common, "--out", "d", "--set", "data.bad_limit=2", status=1)
    assert "more than the 2 allowed" in answer.stderr
    # No image can take another's place in embeddings: every row is the image's own, or NaN.
    answer = run("embed", "b", "--out", "e.npz", "--json")
    assert answer.json["missing_rows"] == [3, 5, 7]
    with np.load("e.npz") as table:
        assert np.isnan(table["embeddings"]).all(axis=1).nonzero()[0].tolist() == [3, 5, 7]


def test_large_images_need_a_larger_limit(run: Run) -> None:
    Path("some").mkdir()
    for number in range(3):
        Image.new("L", (100, 90), 40 * number).save(f"some/{number}.png")
    answer = run("pack", "some", "--out", "p", "--set", "data.max_pixels=8999", status=1)
    assert "100 x 90 pixels, more than data.max_pixels = 8999; to allow it: --set " in answer.stderr
    assert "data.max_pixels=9000" in answer.stderr and " 2 other images" in answer.stderr
    run("pack", "some", "--out", "p", "--set", "data.max_pixels=9000")


def test_a_data_set_is_shown_before_anything_is_trained(run: Run, photos: Path) -> None:
    folder = Path("mine")
    shutil.copytree(photos, folder)
    Image.new("RGBA", (30, 40)).save(folder / "loose.png")
    (folder / "notes.txt").write_text("no image")
    answer = run("show", "--data", folder)
    for line in (
        "folder:mine: 49 train, 12 test, 48 reference images of 256 pixels, 3 channels",
        "  3 classes: class0 20, class1 20, class2 20",
        "  61 images found; left out: 1 .txt",
        "  data.background = white, data.orientation = apply, data.range = auto",
    ):
        assert line in answer.stdout.splitlines()
    assert "of 32 sampled: 31 RGB, 1 RGBA; 24 x 24 to 30 x 40 pixels" in answer.stdout
    facts = run("show", "--data", folder, "--json", "--set", "data.holdout=0").json
    assert facts["images"] == {"train": 61, "reference": 60}
    assert facts["summary"]["left_out"] == {".txt": 1}
    both = run("show", "simclr", "--data", folder)
    assert "simclr:" in both.stdout and "61 images found" in both.stdout


def test_what_to_show_must_be_said(refused: Callable[..., list[str]], photos: Path) -> None:
    assert "add --data" in refused("show")[0]
    assert "Without METHOD" in refused("show", "--data", photos, "--set", "loss.temperature=1")[0]
