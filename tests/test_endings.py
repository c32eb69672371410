"""The end of a command: what happened, what it is worth, and what to type next."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import coview
from coview.evaluation.comparison import NAMES
from coview.evaluation.metrics import percentages
from coview.evaluation.verdict import verdict

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    path = tmp_path_factory.mktemp("endings") / "a run"
    options = {"batch_size": 16, "max_steps": 2, "device": "cpu", "progress": False}
    coview.train("simclr", str(photos), out=path, backbone="resnet10-quarter", **options)
    return path


def following(stderr: str, word: str = "next: coview ") -> list[str]:
    return [line.removeprefix(word) for line in stderr.splitlines() if line.startswith(word)]


NEXT = {
    ("evaluate", "knn"): "evaluate linear RUN",
    ("evaluate", "linear", "--lr", "1", "--weight-decay", "0", "--epochs", "1"): (
        "evaluate finetune RUN --labels 10%"
    ),
    ("evaluate", "finetune", "--epochs", "1"): "export RUN --out backbone.safetensors",
    ("evaluate", "retrieval"): "embed RUN --out embeddings.npz",
    ("evaluate", "svm"): "evaluate linear RUN",
    ("embed", "--out", "my e.npz"): "evaluate retrieval RUN",
}


@pytest.mark.parametrize("command", NEXT, ids=" ".join)
def test_what_to_type_next_can_be_typed(run: Run, trained: Path, command: tuple[str, ...]) -> None:
    words = 2 if command[0] == "evaluate" else 1
    answer = run(*command[:words], trained, *command[words:])
    (line,) = following(answer.stderr)
    assert line == NEXT[command].replace("RUN", shlex.quote(str(trained)))
    run(*shlex.split(line))
    if words == 2:
        (table,) = following(
            answer.stderr, f"kept in {trained}/evaluations.jsonl; all results of the run: coview "
        )
        assert NAMES.get(command[1], command[1]) in run(*shlex.split(table)).stdout
    assert "next" not in run(*command[:words], trained, *command[words:], "--json").stderr


def test_weights_that_are_no_run_are_named_with_their_options(run: Run, photos: Path) -> None:
    options = ("--data", photos, "--on-bad-image", "skip")
    answer = run("evaluate", "knn", "timm:test_resnet", *options)
    (line,) = following(answer.stderr)
    assert line == f"evaluate linear timm:test_resnet --data {photos}"
    assert "kept in" not in answer.stderr
    state = coview.load_backbone("timm:test_resnet").backbone.state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, "own.pth")
    answer = run("embed", "own.pth", "--backbone", "test_resnet", *options, "--out", "e.npy")
    (line,) = following(answer.stderr)
    assert line == f"evaluate retrieval own.pth --data {photos} --backbone test_resnet"
    run(*shlex.split(line))


def test_a_result_that_cannot_be_kept_is_told(run: Run, trained: Path) -> None:
    copied = Path(shutil.copytree(trained, "copied"))
    (copied / "evaluations.jsonl").unlink(missing_ok=True)
    (copied / "evaluations.jsonl").mkdir()
    answer = run("evaluate", "knn", copied)
    assert answer.stdout.startswith("kNN top-1") and "kept in" not in answer.stderr
    assert "The result was not kept with the run: " in answer.stderr


@pytest.mark.parametrize("name", ["e.npy", "e.npz", "e.safetensors"])
def test_how_embeddings_are_read_works(run: Run, trained: Path, name: str) -> None:
    answer = run("embed", trained, "--out", f"it's {name}")
    assert answer.stdout == f"60 embeddings of width 128 in it's {name}\n"
    (code,) = following(answer.stderr, "in Python: ")
    assert eval(code, {"numpy": np, "safetensors": safetensors}).shape == (60, 128)


def test_views_and_pack_end_with_the_training(run: Run, idx: Path) -> None:
    changes = ("--lr", "0.1", "--use", "negatives=queue", "--set", "views.crop_scale=[0.5, 1]")
    answer = run("views", "simclr", "--data", f"idx:{idx}", *changes, "--out", "v.png")
    (line,) = following(answer.stderr)
    expected = ["train", "simclr", "--data", f"idx:{idx}", *changes]
    assert shlex.split(line) == expected
    assert answer.stdout == "8 images and 4 views of each in v.png\n"
    packed = run("pack", f"idx:{idx}", "--out", "a pack")
    assert "48 train, 24 test images of 16 pixels" in packed.stdout
    (other,) = following(packed.stderr)
    assert other == "train simclr --data 'pack:a pack'"
    for words in (line, other):
        small = ("--backbone", "resnet10-quarter", "--device", "cpu", "--dry-run")
        run(*shlex.split(words), *small)
    json_only = run("pack", f"idx:{idx}", "--out", "b", "--json")
    assert json_only.json["out"] == "b" and not following(json_only.stderr)


def test_nothing_to_measure_is_suggested_without_labels(run: Run, tmp_path: Path) -> None:
    images = torch.randint(0, 255, (40, 3, 16, 16), dtype=torch.uint8)
    np.save("images.npy", images.numpy())
    options = {"batch_size": 8, "max_steps": 1, "device": "cpu", "progress": False}
    trained = coview.train("simclr", images, backbone="resnet10-quarter", **options)
    from coview.commands.endings import after_embedding

    found = coview.embed(trained, out="e.npy")
    assert after_embedding(found, Path("e.npy"), ["r"]) == ["in Python: numpy.load('e.npy')"]


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """The directory of a run that measured 400 test images before and after training."""
    knn = {"protocol": "weighted kNN, cosine", "k": 20, "temperature": 0.07, "test_images": 400}
    lines: list[dict[str, Any]] = [
        {"step": 0, "raw_pixels_knn_top1": 0.5},
        {"step": 0, "untrained_knn_top1": 0.7},
        {"step": 9, "knn": knn, "knn_top1": 0.6},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 9, "kn')  # killed while it wrote
    (tmp_path / "run.json").write_text(json.dumps({"data": {"name": "d", "fingerprint": "f"}}))
    return tmp_path


def data(fingerprint: str = "f", each: int = 40) -> Any:
    labels = torch.arange(10).repeat_interleave(each)
    return SimpleNamespace(fingerprint=fingerprint, reference=SimpleNamespace(labels=labels))


KNN = {"protocol": "weighted kNN, cosine", "k": 20, "temperature": 0.07, "test_images": 400}


def test_a_result_is_judged_by_what_the_run_measured(measured: Path) -> None:
    # 1.96 * sqrt((.25 + .24) / 400) = 6.86 points; 1.96 * sqrt((.21 + .24) / 400) = 6.57.
    assert verdict(measured, {**KNN, "top1": 0.6}, data()) == [
        "Better than raw pixels by 10.0 points (chance: up to 6.9).",
        "Worse than the untrained network by 10.0 points (chance: up to 6.6).",
    ]
    raw, untrained = verdict(measured, {"top1": 0.52, "test_images": 400}, data())
    assert raw.startswith("About as good as kNN (k = 20, all labels) of raw pixels: a difference")
    assert untrained.startswith("Worse than kNN (k = 20, all labels) of the untrained network by")
    assert "(k = 20, all labels)" in verdict(measured, {**KNN, "k": 5, "top1": 0.6}, data())[0]


ALONE = "Between two results on 400 images, a difference of up to 6.8 points may be chance."


@pytest.mark.parametrize(
    ("where", "images", "fingerprint"),
    [(".", 400, "g"), ("nowhere", 400, "f"), (".", 100, "f")],
    ids=["other data", "no run", "split otherwise"],
)
def test_what_cannot_be_compared_is_judged_by_chance_alone(
    measured: Path, where: str, images: int, fingerprint: str
) -> None:
    result = {**KNN, "top1": 0.6, "test_images": images}
    expected = ALONE if images == 400 else ALONE.replace("400", "100").replace("6.8", "13.6")
    assert verdict(measured / where, result, data(fingerprint)) == [expected]


def test_chance_where_all_or_none_are_right(measured: Path) -> None:
    for share in (0.0, 1.0):
        (line,) = verdict(Path("x"), {"top1": share, "test_images": 300}, data())
        assert line.startswith("Between two results on 300 images, a difference of up to 1.0 ")
    found = {"recall_at_10": 0.9, "recall_at_1": 0.6, "queries": 400}
    assert verdict(measured, found, data()) == [ALONE]
    assert verdict(measured, {"protocol": "of a stranger"}, data()) == []


def test_more_neighbours_than_a_class_has(measured: Path) -> None:
    result = {**KNN, "top1": 0.6}
    few = verdict(measured, result, data(each=19))
    assert few[-1].endswith(f"Also measure: coview evaluate knn {measured} -k 19")
    other = verdict(measured, result, data(each=19), own=False)
    assert other[-1].endswith("Also measure: with k = 19.")
    cut = verdict(measured, result, data(each=20))
    assert cut[-1].startswith("20 neighbours vote, as many as the smallest class has")


@pytest.mark.parametrize(("classes", "shown"), [(5, False), (6, True)])
def test_top_5_of_five_classes_is_left_out(classes: int, shown: bool) -> None:
    values = {"top1": 0.5, "top5": 1.0, "mean_per_class": 0.25, "classes": classes}
    five = "top-5 100.0 %, " if shown else ""
    assert percentages(values) == f"top-1 50.0 %, {five}mean per class 25.0 %"


def test_top_5_is_nowhere_with_three_classes(run: Run, trained: Path) -> None:
    for command in (("knn",), ("linear", "--protocol", "instdisc"), ("finetune", "--epochs", 1)):
        text = run("evaluate", command[0], trained, *command[1:]).stdout
        assert "top-1" in text and "top-5" not in text
