"""`coview train`: real runs of a few steps, and what they leave."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coview.training.run_settings import RunSettings

Run = Callable[..., Any]
METHODS = ("byol", "instdisc", "moco", "moco-v2", "simclr")
SMALL_HEADS = {
    "byol": ("--set", "encoder.hidden=32", "--set", "encoder.predictor_hidden=32"),
    "moco-v2": ("--set", "encoder.hidden=32"),
}


def metrics(path: str | Path) -> list[dict[str, Any]]:
    text = (Path(path) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def recipe(path: str | Path) -> dict[str, Any]:
    return tomllib.loads((Path(path) / "recipe.toml").read_text(encoding="utf-8"))


def weights(path: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(path) / "backbone.safetensors")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["idx", "folder"])
def test_every_method_trains_on_files(
    run: Run, idx: Path, photos: Path, tiny: tuple[str, ...], method: str, kind: str
) -> None:
    data = f"idx:{idx}" if kind == "idx" else photos
    heads = SMALL_HEADS.get(method, ())
    answer = run("train", method, "--data", data, "--out", "r", *tiny, *heads, "--max-steps", 2)
    assert "kNN top-1" in answer.stdout and answer.stdout.endswith("run: r\n")
    for row in ("raw pixels", "untrained network", "trained network"):
        assert re.search(rf"^  {row} +\d+\.\d %$", answer.stdout, re.MULTILINE)
    # Sixty photographs are few, and the IDX files' images are small.
    assert re.search("preset: (small|tiny)", answer.stderr) and "images/s" in answer.stderr
    losses = [entry["loss"] for entry in metrics("r") if "loss" in entry]
    assert losses and all(map(math.isfinite, losses))
    assert all(bool(value.isfinite().all()) for value in weights("r").values())


def test_digits_is_the_default_and_the_directory_has_a_name(
    run: Run, tiny: tuple[str, ...]
) -> None:
    answer = run("train", "simclr", *tiny, "--max-steps", 2, "--json")
    (path,) = Path("runs").iterdir()
    assert re.fullmatch(r"simclr-digits-\d{8}-\d{6}", path.name)
    summary = answer.json
    assert summary["run"] == str(path) and summary["steps"] == 2
    facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
    assert facts["data"]["name"] == "digits" and facts["data"]["train_images"] == 1438
    assert 0.5 < summary["untrained_knn_top1"] < summary["raw_pixels_knn_top1"] < 1
    assert 0 < summary["knn_top1"] < 1 and math.isfinite(summary["loss"])


def test_a_run_directory_holds_what_the_contract_says(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    options = ("--epochs", 2, "--seed", 5, "--workers", 0, "--precision", "fp32")
    run("train", "moco", "--data", f"idx:{idx}", "--out", "deep/r", *tiny, *options)
    path = Path("deep/r")
    files = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert files == {
        "recipe.toml",
        "run.json",
        "metrics.jsonl",
        "backbone.safetensors",
        "checkpoints/last.pt",
        "checkpoints/previous.pt",  # from before the first step
        "checkpoints/epoch-0001.pt",
        "checkpoints/epoch-0002.pt",
    }
    written = recipe(path)
    asked = {"seed": 5, "precision": "fp32", "workers": 0, "preset": "small", "device": "cpu"}
    assert written["run"] == {
        **RunSettings().repeated(),
        **asked,
        "data": f"idx:{idx}",
        "compile": "off",
        "threads": 1,
        "observe": ["collapse"],
    }
    assert "presets" not in written and written["batch_size"] == 16
    assert written["data"]["size"] == 16 and written["negatives"]["use"] == "queue"
    facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
    assert facts["method"] == "moco" and facts["seed"] == 5 and facts["steps"] == 6
    assert facts["command"] and facts["device"] and facts["started"] <= facts["finished"]
    assert len(facts["data"]["fingerprint"]) == 32
    used = ("coview", "coview-moco", "coview-instdisc", "coview-cpc")
    assert facts["packages"] == {name: metadata.version(name) for name in used}
    assert facts["libraries"]["torch"] == metadata.version("torch")
    logged = metrics(path)
    assert [entry["step"] for entry in logged] == [0, 0, 3, 6, 6]
    assert [entry["epoch"] for entry in logged] == [0, 0, 1, 2, 2]
    assert logged[0].keys() == {"step", "epoch", "raw_pixels_knn_top1"}
    assert logged[1].keys() == {"step", "epoch", "untrained_knn_top1"}
    assert {"loss", "lr", "images_per_second"} <= logged[2].keys()
    assert logged[-1]["knn"]["top1"] == logged[-1]["knn_top1"]
    state = torch.load(path / "checkpoints/last.pt", weights_only=True)
    assert state["step"] == 6 and {"method", "optimizer", "scaler", "random"} <= state.keys()
    first = torch.load(path / "checkpoints/epoch-0001.pt", weights_only=True)
    assert first["step"] == 3


def test_metrics_are_as_json_says_and_progress_goes_to_stderr(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    answer = run("train", "simclr", "--data", f"idx:{idx}", "--out", "r", *tiny, "--max-steps", 2)
    assert "training simclr on idx:" in answer.stderr and "training simclr" not in answer.stdout
    other = run(
        "train", "simclr", "--data", f"idx:{idx}", "--out", "s", *tiny, "--max-steps", 2, "--json"
    )
    document = other.json
    verdict = document.pop("verdict")
    assert len(verdict) >= 2 and "raw pixels" in verdict[0]
    assert document == {
        "run": "s",
        "steps": 2,
        **{
            key: next(e[key] for e in reversed(metrics("s")) if key in e)
            for key in ("raw_pixels_knn_top1", "untrained_knn_top1", "knn_top1", "loss")
        },
    }


def test_dry_run_resolves_and_makes_nothing(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    arguments = ("train", "moco-v2", "--data", f"idx:{idx}", "--out", "r", *tiny, "--dry-run")
    short = run(*arguments).stdout
    assert "preset: small" in short and "batch 16: " in short and "batch_size" not in short
    assert "batch_size = 16  (command line)" in run(*arguments, "-v").stdout
    document = run(*arguments, "--json").json
    assert document["preset"] == "small" and document["data"]["size"]["value"] == 16
    assert document["tables"]["backbone"][0]["use"] == "resnet10-quarter"
    assert not list(Path().iterdir())


def test_presets_are_chosen_by_size_or_by_name(run: Run, idx: Path) -> None:
    def preset(*options: object) -> str | None:
        return run("train", "moco", *options, "--dry-run", "--json").json["preset"]

    data = ("--data", f"idx:{idx}")
    assert preset(*data) == preset(*data, "--image-size", 64) == "small"
    assert preset(*data, "--image-size", 65) is None
    assert preset(*data, "--preset", "none") is None
    assert preset(*data, "--image-size", 65, "--preset", "small") == "small"


def test_evaluation_does_not_change_training(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    common = ("train", "moco", "--data", f"idx:{idx}", *tiny, "--epochs", 2)
    run(*common, "--out", "with", "--evaluate-every", 1, "--save-every", 1)
    run(*common, "--out", "without", "--no-evaluate")
    first, second = weights("with"), weights("without")
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    online = [e["step"] for e in metrics("with") if "online_knn_top1" in e]
    assert online == [3, 6]
    assert not [e for e in metrics("without") if any("knn" in key for key in e)]


def test_the_recipe_that_a_run_leaves_repeats_it(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    changes = ("--set", "negatives.size=24", "--set", "target.decay=cosine(0.9, 1.0)")
    data = ("--data", f"idx:{idx}", "--seed", 3, "--max-steps", 4)
    run("train", "moco-v2", *data, "--out", "a", *tiny, *changes, *SMALL_HEADS["moco-v2"])
    run("train", "a/recipe.toml", "--out", "b", "--device", "cpu")
    assert recipe("b")["run"] == recipe("a")["run"]
    assert {**recipe("a"), "run": None} == {**recipe("b"), "run": None}
    first, second = weights("a"), weights("b")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    states = [torch.load(f"{name}/checkpoints/last.pt", weights_only=True) for name in "ab"]
    assert torch.equal(*(s["method"]["components.negatives.rows"] for s in states))
    run("train", "a/recipe.toml", "--out", "c", "--device", "cpu", "--seed", 4)
    third = weights("c")
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_a_file_of_show_trains(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    text = run("show", "simclr", "--image-size", 16, *tiny[:4], "--toml").stdout
    Path("mine.toml").write_text(text, encoding="utf-8")
    options = ("--data", f"idx:{idx}", "--max-steps", 2, "--device", "cpu")
    run("train", "mine.toml", *options, "--out", "a")
    run("train", "simclr", *options, *tiny, "--out", "b")
    first, second = weights("a"), weights("b")
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_training_starts_from_given_weights(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    common = ("--data", f"idx:{idx}", *tiny, "--no-evaluate")
    run("train", "simclr", *common, "--out", "a", "--max-steps", 4)
    frozen = ("--set", "optimizer.lr=1e-30", "--max-steps", 1)
    run("train", "moco", *common, "--out", "b", "--init", "a", *frozen)
    first, second = weights("a"), weights("b")
    learned = [n for n in first if "running" not in n and "num_batches" not in n]
    assert all(torch.allclose(first[n], second[n], rtol=0, atol=1e-12) for n in learned)
    state = torch.load("b/checkpoints/last.pt", weights_only=True)["method"]
    key = state["components.target.network.trunk.conv1.weight"]
    assert torch.allclose(key, first["conv1.weight"])


def test_accumulated_micro_batches_do_one_step(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--accumulate", 2, "--epochs", 1, "--no-evaluate")
    changes = ("--set", "negatives.size=32", "--set", "encoder.norm_groups=2")
    run("train", "moco", *options, *changes, "--out", "r")
    state = torch.load("r/checkpoints/last.pt", weights_only=True)
    assert state["step"] == 3
    # Three batches of 16 keys have gone round a queue of 32.
    assert int(state["method"]["components.negatives.pointer"]) == 48 % 32


def test_a_folder_without_labels_trains_without_an_accuracy(
    run: Run, photos: Path, tiny: tuple[str, ...]
) -> None:
    answer = run(
        "train", "simclr", "--data", photos / "class0", "--out", "r", *tiny, "--max-steps", 1
    )
    assert answer.stdout.endswith("but looked at: coview neighbours.\nrun: r\n")
    assert not [e for e in metrics("r") if any("knn" in key for key in e)]


def test_an_observer_is_named_on_the_command_line(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--no-evaluate")
    answer = run("train", "simclr", *options, "--out", "r", "--observe", "progress")
    assert answer.stderr.count("training simclr on") == 1
