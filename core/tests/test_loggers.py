"""What a run logs, as CSV and in the programs that have observers of their own."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import coview
from coview.errors import RequestError
from coview.training.observers.base import watchers
from coview.training.observers.logs import flat

SIZE: dict[str, Any] = {"backbone": "resnet10-quarter", "batch_size": 64, "progress": False}


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (240, 3, 8, 8), dtype=torch.uint8, generator=generator)


def train(path: Path, *observers: str, **options: Any) -> Any:
    labels = torch.arange(240) % 3
    settings = {"log_every": 1, "epochs": 2, **SIZE, **options}
    return coview.train("simclr", (images(), labels), out=path, observe=observers, **settings)


def go_on(path: Path) -> Any:
    labels = torch.arange(240) % 3
    return coview.train(
        resume=path, data=(images(), labels), max_steps="none", evaluate=True, progress=False
    )


def table(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected(path: Path) -> list[dict[str, str]]:
    """The run's own log, flattened by hand: one level of nesting, everything as text."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    made, columns = [], []
    for line in lines:
        row = {}
        for name, value in line.items():
            pairs = (
                {f"{name}.{key}": inner for key, inner in value.items()}
                if isinstance(value, dict)
                else {name: value}
            )
            for key, inner in pairs.items():
                row[key] = "" if inner is None else str(inner)
                if key not in columns:
                    columns.append(key)
        made.append(row)
    return [{column: row.get(column, "") for column in columns} for row in made]


def test_nested_names_are_joined() -> None:
    assert flat({"a": 1, "b": {"c": {"d": 2}, "e": None}}) == {"a": 1, "b.c.d": 2, "b.e": None}


def test_csv_is_the_runs_log_and_is_cut_back_with_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(path, "csv", max_steps=2)
    first = table(path)
    assert first == expected(path)
    assert [row["step"] for row in first] == ["0", "0", "1", "2", "2"]
    assert first[0]["raw_pixels_knn_top1"] and not first[0]["loss"]
    assert (first[-1]["knn.k"], first[-1]["knn.train_images"]) == ("64", "192")
    go_on(path)
    rows = table(path)
    assert rows == expected(path)
    assert [row["step"] for row in rows] == ["0", "0", "1", "2", "3", "4", "5", "6", "6"]
    assert [bool(row["knn_top1"]) for row in rows] == [False] * 8 + [True], "the first is cut off"
    assert not [p for p in path.iterdir() if p.name.endswith(".tmp")]


class FakeWandb(ModuleType):
    """Keeps what it is told, as wandb's module-level interface takes it."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.finished = 0

    def init(self, **options: Any) -> Any:
        self.begun.append(options)
        return SimpleNamespace(
            id=options["id"] or "abc",
            log=self.logged.append,
            define_metric=lambda name, step_metric: None,
            finish=lambda: setattr(self, "finished", self.finished + 1),
        )


def test_wandb_gets_every_entry_once_and_goes_on_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    path = tmp_path / "run"
    train(path, "wandb:project=mine,mode=offline", max_steps=2, evaluate=False)
    (begun,) = fake.begun
    assert (begun["project"], begun["name"], begun["mode"]) == ("mine", "run", "offline")
    assert begun["id"] is None and begun["config"]["recipe"]["views"]["use"] == "simclr"
    assert [entry["step"] for entry in fake.logged] == [1, 2] and fake.finished == 1
    go_on(path)
    assert fake.begun[1]["id"] == "abc" and fake.begun[1]["resume"] == "allow"
    assert [entry["step"] for entry in fake.logged] == [1, 2, 3, 4, 5, 6, 6]
    assert fake.finished == 2
    assert "knn.top1" in fake.logged[-1]


class FakeWriter:
    made: list[Any] = []

    def __init__(self, log_dir: str, purge_step: int | None = None) -> None:
        self.log_dir, self.purge_step = log_dir, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False
        Path(log_dir).mkdir(exist_ok=True)
        FakeWriter.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_every_number_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr(FakeWriter, "made", [])
    path = tmp_path / "run"
    train(path, "tensorboard", max_steps=2, evaluate=False)
    go_on(path)
    first, second = FakeWriter.made
    assert first.log_dir == second.log_dir == str(path / "tensorboard")
    assert (first.purge_step, second.purge_step) == (None, 3)
    assert first.closed and second.closed
    losses = [
        (step, name) for w in FakeWriter.made for name, _, step in w.scalars if name == "loss"
    ]
    assert losses == [(step, "loss") for step in range(1, 7)]
    names = {name for name, _, _ in second.scalars}
    assert "knn.top1" in names and "knn.protocol" not in names and "step" not in names


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_what_is_not_installed_is_said_before_anything_is_done(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RequestError, match=rf"{name} needs: pip install {name}"):
        watchers([name])
    with pytest.raises(RequestError, match=r"wandb\.mode must be online or offline"):
        watchers(["wandb:mode=of"])


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="an optional extra")
def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path / "run", "wandb:mode=offline", max_steps=2, evaluate=False)
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert file.stat().st_size > 100


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="an optional extra")
def test_tensorboard_itself(tmp_path: Path) -> None:
    train(tmp_path / "run", "tensorboard", max_steps=2, evaluate=False)
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert file.name.startswith("events.out") and b"loss" in file.read_bytes()
