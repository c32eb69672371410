"""Whose numbers are better: what is compared with what, in which order, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from coview.errors import RequestError
from coview.evaluation.chance import margin
from coview.evaluation.comparison import as_rows, compare, settings_of, worth
from coview.evaluation.results import remember, rows
from coview.evaluation.tables import markdown, text

RECIPE: dict[str, Any] = {
    "summary": "a summary",
    "epochs": 40,
    "batch_size": 64,
    "views": {"use": "crops", "size": 32},
    "loss": {"use": "info-nce", "temperature": 0.1},
    "negatives": [{"use": "queue", "size": 64}, {"use": "in-batch", "size": 1}],
    "optimizer": {"use": "sgd", "lr": 0.3},
    "probe": {"use": "sgd", "lr": 30.0},
}


class Runs:
    """Makes runs that differ from RECIPE in some settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        name: str,
        top1: float,
        *,
        seed: int = 0,
        method: str = "simclr",
        data: str = "digits",
        fingerprint: str = "abc",
        images: int = 400,
        epoch: float = 40.0,
        preset: str = "none",
        **changes: Any,
    ) -> Path:
        path = self.folder / name
        path.mkdir(parents=True)
        facts = {
            "method": method,
            "seed": seed,
            "command": ["coview", "train", method],
            "data": {"name": data, "fingerprint": fingerprint, "train_images": 1600},
            "settings": {"preset": preset, "precision": "fp32", "device": "cpu", "log_every": seed},
        }
        (path / "run.json").write_text(json.dumps(facts))
        recipe = json.loads(json.dumps(RECIPE))
        for key, value in changes.items():
            table, _, entry = key.partition("__")
            if entry:
                recipe[table][entry] = value
            else:
                recipe[table] = value
        (path / "recipe.toml").write_text(tomli_w.dumps(recipe))
        knn = {"protocol": "kNN", "top1": top1, "top5": 0.99, "k": 20, "classes": 10}
        line = {"step": 9, "epoch": epoch, "knn": {**knn, "test_images": images}}
        (path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return path


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def told(*paths: Path, width: int = 80, each: bool = False) -> list[str]:
    return text(compare(paths, rows(paths), each), width).splitlines()


def test_settings_have_the_names_of_set(runs: Runs) -> None:
    found = settings_of(runs("a", 0.5, seed=3))
    assert found["training images"] == 1600
    assert found["loss"] == "info-nce" and found["loss.temperature"] == 0.1
    assert (found["negatives.size"], found["negatives.1.size"]) == (64, 1)
    assert (found["seed"], found["epochs"], found["method"]) == (3, 40, "simclr")
    assert not {"probe.lr", "summary", "device", "log_every"} & set(found)


def test_columns_are_what_differs_and_the_best_is_first(runs: Runs) -> None:
    names = ("low", "best", "middle")
    paths = [
        runs(name, top1, loss__temperature=warmth)
        for name, top1, warmth in zip(names, (0.6, 0.9, 0.8), (0.1, 0.2, 0.4), strict=True)
    ]
    lines = told(*paths)
    head = next(number for number, line in enumerate(lines) if line.startswith("top-1"))
    assert lines[head].split() == ["top-1", "top-5", "temperature", "run"]
    assert [line.split() for line in lines[head + 1 : head + 4]] == [
        ["90.0", "%", "99.0", "%", "0.2", "best"],
        ["80.0", "%", "99.0", "%", "0.4", "middle"],
        ["60.0", "%", "99.0", "%", "0.1", "low"],
    ]
    shared = " ".join(lines[: head - 2])
    for said in ("method simclr", "trained on digits", "epochs 40", "batch size 64", "lr 0.3"):
        assert said in shared, said
    # A long path is broken into lines.
    assert "temperature" not in shared and f"Runsarein{runs.folder}" in "".join(
        "".join(lines).split()
    )


def test_what_a_method_or_a_preset_brings_is_no_column(runs: Runs) -> None:
    one = runs("one", 0.5, views__size=16, batch_size=32)
    two = runs("two", 0.6, method="byol", loss={"use": "cosine"})
    three = runs("three", 0.7, preset="small", views__size=24, epochs=20, epoch=20.0)
    assert compare((one, two), rows((one, two))).differing == ("method", "batch_size")
    assert any("method byol, " in line or " byol " in line for line in told(one, two))
    # Two runs of one method and preset: then it is their own.
    four = runs("four", 0.5, views__size=64)
    found = compare((one, two, three, four), rows((one, two, three, four)))
    assert set(found.differing) == {"method", "preset", "epochs", "batch_size", "views.size"}


def test_epochs_are_those_that_were_trained(runs: Runs) -> None:
    whole, cut = runs("whole", 0.5), runs("cut", 0.6, epoch=3.5)
    found = compare((whole, cut), rows((whole, cut)))
    assert [line.settings["epochs"] for line in found.groups[0].lines] == ["3.5 of 40", 40]


def test_seeds_are_one_line(runs: Runs) -> None:
    shares = {0.1: (0.90, 0.80, 0.85), 0.5: (0.70, 0.74)}
    paths = [
        runs(f"t{warmth}-s{seed}", top1, seed=seed, loss__temperature=warmth)
        for warmth, each in shares.items()
        for seed, top1 in enumerate(each)
    ]
    lines = told(*paths)
    rows_told = [line.split() for line in lines if line.endswith(" runs")]
    assert rows_told[0] == ["85.0", "%", "3", "80.0", "to", "90.0", "99.0", "%", "0.1", "3", "runs"]
    assert rows_told[1] == ["72.0", "%", "2", "70.0", "to", "74.0", "99.0", "%", "0.5", "2", "runs"]
    assert "--each shows every run" in " ".join(lines) and "one seed" not in " ".join(lines)
    single = [line.split() for line in told(*paths, each=True) if line.split()[-1:] != ["run"]]
    ranked = [line for line in single if line[-1:] and line[-1].startswith("t0.")]
    assert [line[-1] for line in ranked] == ["t0.1-s0", "t0.1-s2", "t0.1-s1", "t0.5-s1", "t0.5-s0"]
    assert [line[-2] for line in ranked] == ["0", "2", "1", "1", "0"], "each has its seed"


def test_a_seed_that_differs_with_another_setting_is_a_column(runs: Runs) -> None:
    paths = (runs("a", 0.5, seed=1), runs("b", 0.6, seed=2, optimizer__lr=0.1))
    head = next(line for line in told(*paths) if line.startswith("top-1"))
    assert head.split() == ["top-1", "top-5", "lr", "seed", "run"]


def test_one_image_and_chance(runs: Runs) -> None:
    near = [runs(f"n{n}", 0.9 - n / 100, loss__temperature=n) for n in range(3)]
    far = runs("far", 0.5, loss__temperature=9)
    (group,) = compare((*near, far), rows((*near, far))).groups
    limit = 100 * margin(0.9, 0.88, 400)
    assert worth(group) == (
        f"One of 400 test images is 0.25 points; differences below {limit:.1f} points may be "
        "chance. The first 3 are too close to tell apart. Each has one seed, and another may "
        "change this."
    )
    (group,) = compare((near[0], far), rows((near[0], far))).groups
    assert worth(group).endswith(
        "The first is better than all others by more than that. Each has one seed, and another "
        "may change this."
    )
    (group,) = compare(near[:1], rows(near[:1])).groups
    assert worth(group) == "One of 400 test images is 0.25 points."
    ones = [runs(f"one{n}", 1.0, optimizer__lr=n, images=50) for n in (1.0, 2.0)]
    (group,) = compare(ones, rows(ones)).groups
    assert "below 2.0 points may be chance. The first 2 are too close" in worth(group)


def test_only_what_may_be_compared_stands_together(runs: Runs) -> None:
    ours = [runs(f"r{n}", n / 10, optimizer__lr=float(n)) for n in (4, 5)]
    other = runs("other", 0.99, optimizer__lr=9.0, data="birds", fingerprint="def")
    changed = runs("changed", 0.98, optimizer__lr=8.0, fingerprint="ghi")
    fewer = runs("fewer", 0.97, optimizer__lr=7.0, images=200)
    linear = {"evaluation": "linear", "protocol": "linear", "top1": 0.8, "data": "digits"}
    for path, epochs in zip(ours, (10, 20), strict=True):
        remember(path, {**linear, "epochs": epochs, "test_images": 400}, ["coview"])
    paths = (other, *ours, changed, fewer)
    found = compare(paths, rows(paths))
    sizes = [len(group.lines) for group in found.groups]
    assert sizes == [2, 1, 1, 1, 1, 1], "those of most runs come first"
    assert [line.means["top1"] for line in found.groups[0].lines] == [0.5, 0.4]
    titles = [group.title for group in found.groups]
    assert len(set(titles)) == len(titles) and "kNN on birds, 400 test images" in titles[1]
    shown = " ".join(told(*paths))
    assert "they cannot be compared" in shown and "(changed: ghi)" in shown
    numbers = [row["comparable"] for row in as_rows(paths, rows(paths))]
    assert len(set(numbers)) == 6 and numbers[1] == numbers[3] != numbers[2]
    assert "cannot be compared" not in " ".join(told(fewer))


def test_the_same_data_by_another_path_may_be_compared(runs: Runs) -> None:
    paths = (runs("a", 0.5, data="folder:birds"), runs("b", 0.6, data="folder:/data/birds"))
    (group,) = compare(paths, rows(paths)).groups
    assert len(group.lines) == 2


def test_what_is_measured_again_counts_once(runs: Runs) -> None:
    path = runs("a", 0.5)
    again = {**rows([path])[0], "evaluation": "knn", "top1": 0.7}
    result = {key: value for key, value in again.items() if key not in ("run", "command")}
    remember(path, result, ["coview"])
    (group,) = compare([path], rows([path])).groups
    assert [line.means["top1"] for line in group.lines] == [0.7]


def test_five_classes_have_no_top_5(runs: Runs) -> None:
    path = runs("a", 0.5)
    metrics = path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"classes": 10', '"classes": 5'))
    assert "top-5" not in " ".join(told(path))


@pytest.mark.parametrize("width", [72, 80, 120])
def test_it_fits(runs: Runs, width: int) -> None:
    paths = [
        runs(
            f"simclr-a-folder-with-a-very-long-name-20261129-08474{number}",
            0.5 + number / 100,
            optimizer__lr=0.1 * number,
            loss__temperature=number / 7,
            views__size=16 + number,
            views__scale=[0.1 * number, 1.0],
            epochs=10 * number,
            epoch=99.0,
            batch_size=2**number,
        )
        for number in range(1, 5)
    ]
    lines = told(*paths, width=width)
    assert max(map(len, lines)) <= width
    # Nothing is cut off: names and settings are wrapped.
    assert "…" not in "".join(lines)
    joined = "".join(line.replace(" ", "") for line in lines)
    assert "0.2857142857142857" in joined
    name_parts = [line.split()[-1] for line in lines if "simclr-" in line]
    assert len(name_parts) >= 4


def test_markdown(runs: Runs) -> None:
    paths = (runs("a|b", 0.5, loss__temperature=0.2), runs("c", 0.6))
    lines = markdown(compare(paths, rows(paths))).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table == [
        "| top-1 | top-5 | temperature | run |",
        "| --- | --- | --- | --- |",
        "| 60.0 % | 99.0 % | 0.1 | c |",
        "| 50.0 % | 99.0 % | 0.2 | a\\|b |",
    ]
    assert (
        lines[0].startswith("All runs: method simclr, ") and "One of 400 test images" in lines[-1]
    )


def test_a_run_without_evaluations_is_named(runs: Runs) -> None:
    with_some, without = runs("a", 0.5), runs("b", 0.5)
    (without / "metrics.jsonl").write_text("")
    lines = told(with_some, without, width=500)
    assert lines[-1] == (
        f"{without} has no evaluations yet. To add one: coview evaluate knn {without}"
    )
    with pytest.raises(RequestError, match="There is no run at"):
        rows([runs.folder])
