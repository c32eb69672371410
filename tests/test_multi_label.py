"""Images of several classes, from a table on disk and from Python, measured by every command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import coview
from coview.data.base import DataSettings
from coview.data.sources.listed import ListFile
from coview.evaluation.features import features

Run = Callable[..., Any]
COLOURS = ("red", "green", "blue")


def picture(number: int) -> np.ndarray[Any, Any]:
    """Return an image that is bright in the channels of its classes."""
    noise = np.random.RandomState(number).randint(0, 100, (16, 16, 3))
    return (noise + [150 * (number >> bit & 1) for bit in range(3)]).astype(np.uint8)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 64 images: every combination of three colours."""
    folder = tmp_path_factory.mktemp("colours")
    lines = ["file,tags,split"]
    for number in range(64):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
        tags = "|".join(name for bit, name in enumerate(COLOURS) if number >> bit & 1) or "grey"
        lines.append(f"{number}.png,{tags},{'test' if number >= 48 else 'train'}")
    (folder / "tags.csv").write_text("\n".join(lines))
    return folder / "tags.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    coview.train(
        "simclr", str(table), out=path, batch_size=16, backbone="resnet10-quarter",
        max_steps=2, device="cpu", progress=False, image_size=16,
    )  # fmt: skip
    return path


def test_a_run_says_that_it_does_not_measure(run: Run, table: Path, tmp_path: Path) -> None:
    said = run(
        "train", "simclr", "--data", str(table), "--out", "run", "--batch-size", 16,
        "--backbone", "resnet10-quarter", "--max-steps", 1, "--image-size", 16, "--device", "cpu",
    )  # fmt: skip
    assert "The images have several of 4 classes each. A run does not measure that" in said.stderr
    assert (
        "which a run does not measure: coview evaluate knn run does." in said.stdout + said.stderr
    )
    metrics = (tmp_path / "run/metrics.jsonl").read_text()
    assert "knn" not in metrics
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["name"].startswith("list:")


def test_knn_of_a_table_equals_scikit_learn(run: Run, trained: Path, table: Path) -> None:
    said = run("evaluate", "knn", trained, "-k", 9, "--json").json
    assert (said["classes"], said["classes_measured"], said["test_images"]) == (4, 4, 16)
    assert not {"top1", "top5", "mean_per_class"} & set(said)
    network = coview.load_backbone(trained)
    data = ListFile(str(table)).load(DataSettings(size=16))
    rows, queries = (features(network, s).double().numpy() for s in (data.train, data.test))
    rows, queries = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (rows, queries))
    scores = np.zeros((16, 4))
    for place, cosines in enumerate(queries @ rows.T):
        near = np.argsort(-cosines)[:9]
        weights = np.exp(cosines[near] / 0.07)
        scores[place] = (weights[:, None] * data.train.multi_hot[near].numpy()).sum(0)
        scores[place] /= weights.sum()
    expected = average_precision_score(data.test.multi_hot.numpy(), scores.round(5))
    assert said["mean_average_precision"] == pytest.approx(expected, abs=2e-3)
    text = run("evaluate", "knn", trained, "-k", 9).stdout
    assert f"kNN mean average precision {100 * expected:.0f}"[:32] in text
    assert "% (over 4 classes) on list:" in text and "top-1" not in text


def test_linear_and_finetune_of_a_table(run: Run, trained: Path, tmp_path: Path) -> None:
    linear = run("evaluate", "linear", trained, "--epochs", 50, "--json").json
    assert linear["mean_average_precision"] > 0.8 and "validation_top1" not in linear
    paper = ("--protocol", "paper", "--epochs", 2, "--json")
    assert run("evaluate", "linear", trained, *paper).json["classes_measured"] == 4
    tuned = run(
        "evaluate", "finetune", trained, "--labels", "50%", "--epochs", 3,
        "--save", "c.safetensors", "--json",
    ).json  # fmt: skip
    assert (tuned["train_images"], tuned["classes_measured"]) == (24, 4)
    assert 0.2 < tuned["mean_average_precision"] <= 1
    rows = run("evaluate", "table", trained, "--json").json
    assert {row["evaluation"] for row in rows} >= {"linear", "finetune"}
    text = run("evaluate", "table", trained).stdout
    assert "mean average precision" in text and "may be chance" not in text


def test_what_needs_one_class_refuses(run: Run, trained: Path) -> None:
    (problem,) = run("evaluate", "svm", trained, status=2).errors
    assert "several classes each, and this needs one per image" in problem
    (problem,) = run("evaluate", "retrieval", trained, status=2).errors
    assert "several classes each, so none is the class to match by: --match name" in problem


@pytest.mark.parametrize("kind", ["set", "arrays", "names"])
def test_targets_in_python(trained: Path, kind: str) -> None:
    images = torch.tensor(np.stack([picture(n) for n in range(64)])).permute(0, 3, 1, 2)
    hot = torch.arange(64)[:, None] >> torch.arange(3) & 1
    data: Any = (images, hot)
    if kind == "set":
        data = torch.utils.data.TensorDataset(images, hot)
    elif kind == "names":
        data = {"images": images, "labels": [[COLOURS[c] for c in r.nonzero()] for r in hot]}
    found = coview.evaluate(trained, "linear", data, epochs=50, lr=1.0, weight_decay=0.0)
    assert (found["classes"], found["test_images"]) == (3, 13)
    assert found["mean_average_precision"] > 0.9
    assert "Linear mean average precision" in repr(found)
    assert coview.evaluate(trained, "knn", data, k=5)["mean_average_precision"] > 0.7


def test_the_probe_learns_several_classes_beside_training(table: Path, tmp_path: Path) -> None:
    trained = coview.train(
        "simclr", str(table), out=tmp_path / "run", batch_size=16, backbone="resnet10-quarter",
        epochs=40, device="cpu", progress=False, image_size=16, observe=["probe:lr=1.0"],
        set={"views.grey_p": 0.0, "views.jitter_p": 0.0, "views.crop_scale": [0.8, 1.0]},
    )  # fmt: skip
    found = [m for m in trained.metrics if "online_probe_mean_average_precision" in m]
    assert len(found) == 40 and all(m["online_probe_classes_measured"] == 4 for m in found)
    # A constant score gives each class its share, about a half.
    assert found[-1]["online_probe_mean_average_precision"] > 0.9
    assert not any("online_probe_top1" in m for m in trained.metrics)
