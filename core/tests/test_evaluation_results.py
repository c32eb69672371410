"""Results are kept beside their run, and several runs make one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coview.errors import CoviewError, RequestError
from coview.evaluation.comparison import compare
from coview.evaluation.results import remember, rows
from coview.evaluation.tables import text

KNN = {"protocol": "weighted kNN, cosine", "top1": 0.5, "top5": 0.9, "k": 20}
LINEAR = {
    "evaluation": "linear",
    "protocol": "linear|offline",
    "top1": 0.75,
    "epochs": 100,
    "seed": 3,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "one"
    path.mkdir()
    facts: dict[str, Any] = {"method": "simclr", "seed": 7, "data": {"name": "digits"}}
    facts["command"] = ["/usr/bin/coview", "train", "simclr"]
    (path / "run.json").write_text(json.dumps(facts))
    (path / "recipe.toml").write_text("epochs = 40\n")
    lines = [{"step": 0, "epoch": 0.0}, {"step": 9, "epoch": 3.0, "knn": KNN}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_row_says_what_was_trained_how_it_was_measured_and_by_what(run: Path) -> None:
    remember(run, LINEAR, ["coview", "evaluate", "linear", str(run)])
    trained = {"run": str(run), "method": "simclr", "trained_on": "digits"}
    trained |= {"trained_epochs": 3.0, "run_epochs": 3.0}
    first, second = rows([run])
    assert first == {
        **trained,
        "train_seed": 7,
        "evaluation": "knn",
        "data": "digits",
        **KNN,
        "command": ["/usr/bin/coview", "train", "simclr"],
    }
    assert second.pop("time").endswith("+00:00")
    command = ["coview", "evaluate", "linear", str(run)]
    assert second == {**trained, "train_seed": 7, **LINEAR, "command": command}


def test_what_was_measured_before_a_run_was_trained_further_says_so(run: Path) -> None:
    remember(run, LINEAR, ["coview"])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 12, "epoch": 4.0, "knn": KNN}) + "\n")
    remember(run, {**LINEAR, "seed": 4}, ["coview"])
    found = [(row["evaluation"], row["trained_epochs"], row["run_epochs"]) for row in rows([run])]
    assert found == [("knn", 3, 4), ("knn", 4, 4), ("linear", 3, 4), ("linear", 4, 4)]
    shown = text(compare([run], rows([run])), 80)
    assert f"What was measured of {run} after 3 epochs is left out" in " ".join(shown.split())
    assert shown.count("Linear probe on ") == 1


def test_results_are_added_one_a_line(run: Path) -> None:
    for number in range(3):
        remember(run, {**LINEAR, "seed": number}, ["coview"])
    lines = (run / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1, 2]
    assert [path.name for path in run.iterdir() if path.name.endswith(".tmp")] == []
    remember(run / "recipe.toml", LINEAR, ["coview"])
    remember(run.parent, LINEAR, ["coview"])
    assert not (run.parent / "evaluations.jsonl").exists(), "weights that are no run keep none"


def test_what_is_no_run_or_is_damaged(run: Path) -> None:
    with pytest.raises(RequestError, match="There is no run at"):
        rows([run, run.parent])
    (run / "evaluations.jsonl").write_text('{"half')
    with pytest.raises(CoviewError, match=r"evaluations.jsonl is damaged"):
        rows([run])
