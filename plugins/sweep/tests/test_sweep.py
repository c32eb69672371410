"""Sweeps: what is asked for, what is chosen, and real processes that are killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coview.errors import CoviewError, RequestError
from coview_sweep import sweep as sweeping
from coview_sweep.spec import Spec, bounds, listed
from coview_sweep.sweep import opened, ranked
from coview_sweep.trial import Process

SHORT = (
    *("--backbone", "resnet10-quarter", "--batch-size", "16", "--epochs", "5"),
    *("--no-compile", "--no-evaluate"),
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # busy machines wait long for many


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return options of a small run: 48 images of two classes to train on, 16 to test with."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(64):
        kind = folder / ("train", "test")[number >= 48] / ("ant", "bee")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        values = np.random.RandomState(number).randint(0, 256, (16, 16, 3), np.uint8)
        values[..., number % 2] //= 4
        Image.fromarray(values).save(kind / f"{number}.png")
    return ("--data", str(folder), *SHORT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.05..1", (0.05, 1, False)),
        ("1e-4..1e-1:log", (1e-4, 1e-1, True)),
        ("2..8", (2, 8, False)),
        ("-1.5..1.5", (-1.5, 1.5, False)),
        ("0.5..0.75", (0.5, 0.75, False)),
    ],
)
def test_ranges(text: str, expected: tuple[Any, ...]) -> None:
    assert bounds(text) == expected


@pytest.mark.parametrize("text", ["1", "2..1", "a..b", "0..1:log", "1..2:ln", "..", "1..1"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(RequestError, match="range"):
        bounds(text)


def test_lists_of_values() -> None:
    assert listed("0.1,0.2") == [0.1, 0.2]
    assert listed("cosine(0.9, 1.0),0.99") == ["cosine(0.9, 1.0)", 0.99]
    assert listed("[1, 2],[3]") == [[1, 2], [3]]
    assert listed("true,sgd,2") == [True, "sgd", 2]


def test_all_problems_are_told_together() -> None:
    wrong = {"grid": {"a": [], "b": [1]}, "range": {"b": "2..1"}, "sampler": "grdi"}
    with pytest.raises(RequestError) as raised:
        Spec.of({"method": "simclr", **wrong}, "here")
    said = " ".join(raised.value.problems)
    for part in ("--grid a", "2..1", "by --grid or by --range", "Did you mean 'grid'"):
        assert part in said, said
    with pytest.raises(RequestError, match="Nothing varies"):
        Spec.of({"method": "simclr"}, "here")
    with pytest.raises(RequestError, match="no key called 'gird'"):
        Spec.of({"method": "simclr", "gird": {}}, "here")


class Pretended(Process):
    """A trial whose readings are a function of its setting: one more each time it is looked at."""

    words: Any = ()

    @classmethod
    def begin(cls, folder: Path, words: Any, threads: int) -> Process:
        made = cls(folder, folder.with_suffix(".log"))
        made.words = words
        settings = [word for word in words if word.startswith("x=")]
        made.x = float(settings[0].removeprefix("x="))
        made.looks = 0
        made.ended = False
        return made

    @property
    def over(self) -> bool:
        self.looks += 1
        return self.looks > 5

    @property
    def finished(self) -> bool:
        return self.x < 100

    def readings(self, metric: str) -> list[tuple[int, float]]:
        return [(step, self.x * step) for step in range(1, min(self.looks, 5) + 1)]

    def end(self) -> None:
        self.ended = True


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> Any:
    monkeypatch.setattr(sweeping, "Process", Pretended)
    monkeypatch.setattr(sweeping, "PAUSE", 0.0)
    spec, study = opened(folder, Spec.of({"method": "simclr", **values}, "here"))
    told: list[str] = []
    sweeping.run(folder, spec, study, values.get("workers", 1), told.append)
    return spec, study, told


def test_a_grid_is_tried_once_and_its_best_is_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"x": [1.0, 4.0, 2.0], "y": ["a", "b"]}
    spec, study, _ = pretend(tmp_path, monkeypatch, grid=grid, pruner="none")
    found = {(t.params["x"], t.params["y"]): t.value for t in study.trials}
    assert found == {(x, y): 5 * x for x in grid["x"] for y in grid["y"]}
    best = ranked(spec, study)[0]
    assert best.value == 20 and "--set x=4.0" in spec.command(best.params)
    assert spec.command(best.params).startswith("coview train simclr --observe probe --set")
    # Opened again, there is nothing left to do.
    _, again, told = pretend(tmp_path, monkeypatch, grid=grid, pruner="none")
    assert len(again.trials) == 6 and told == []
    with pytest.raises(RequestError, match="has another sweep"):
        pretend(tmp_path, monkeypatch, grid={"x": [3.0]})


def test_trials_that_fall_behind_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"x": [9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0]}
    _, study, told = pretend(tmp_path, monkeypatch, grid=grid)
    states = {trial.params["x"]: trial.state.name for trial in study.trials}
    assert "PRUNED" in states.values() and states[9.0] == "COMPLETE"
    pruned = [x for x, state in states.items() if state == "PRUNED"]
    whole = [x for x, state in states.items() if state == "COMPLETE"]
    assert max(pruned) < max(whole) and any("ends early" in text for text in told)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_draws_go_on_and_do_not_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    values = {"range": {"x": "0.1..50:log"}, "sampler": sampler, "pruner": "none"}
    pretend(tmp_path, monkeypatch, trials=4, **values)
    _, study, _ = pretend(tmp_path, monkeypatch, trials=8, **values)
    drawn = [trial.params["x"] for trial in study.trials]
    assert len(drawn) == 8 and len(set(drawn)) == 8
    assert all(0.1 <= x <= 50 for x in drawn)


def test_a_sweep_in_which_nothing_trains_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CoviewError, match="The first 3 trials failed"):
        pretend(tmp_path, monkeypatch, grid={"x": [100.0, 101.0, 102.0, 103.0]})


def command(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "coview", "sweep", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def outcome(*words: str) -> dict[str, Any]:
    process = command("--json", *words)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.is_file() else 0


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_end(
    tmp_path: Path, photos: tuple[str, ...]
) -> None:
    values = ("simclr", "--grid", "optimizer.lr=0.3,1.0", "--pruner", "none")
    whole = outcome(*values, "--out", str(tmp_path / "whole"), "--", *photos)
    folder = tmp_path / "killed"
    first = command(*values, "--out", str(folder), "--", *photos)
    wait_for(lambda: lines(folder / "trial-0000/metrics.jsonl") >= 2)
    os.kill(first.pid, signal.SIGKILL)  # of the sweep alone: its trial goes on training
    first.communicate()
    second = command(str(folder))
    wait_for(lambda: lines(folder / "trial-0001/metrics.jsonl") >= 2)
    trial = int((folder / "trial-0001.pid").read_text())
    os.kill(second.pid, signal.SIGKILL)
    os.kill(trial, signal.SIGKILL)  # of both: nothing of this trial was saved
    second.communicate()
    killed = outcome(str(folder))

    def values_of(document: dict[str, Any]) -> dict[float, Any]:
        trials = document["trials"]
        return {each["settings"]["optimizer.lr"]: (each["state"], each["value"]) for each in trials}

    assert len(killed["trials"]) == 2 and values_of(killed) == values_of(whole)
    assert all(state == "complete" for state, _ in values_of(whole).values())
    for name in ("trial-0000", "trial-0001"):
        one, other = (
            load_file(tmp_path / kind / name / "backbone.safetensors")
            for kind in ("whole", "killed")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_ctrl_c_saves_every_trial_and_says_how_to_go_on(
    tmp_path: Path, photos: tuple[str, ...]
) -> None:
    process = command(
        "simclr", "--grid", "optimizer.lr=0.3,1.0", "--workers", "2",
        "--out", str(tmp_path / "two"),
        "--", *photos, "--epochs", "5000",
    )  # fmt: skip
    for name in ("trial-0000", "trial-0001"):
        wait_for(lambda name=name: lines(tmp_path / "two" / name / "metrics.jsonl") >= 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (
        process.returncode == 1 and "Stopped; every trial is saved. To go on: coview sweep" in err
    )
    assert "--workers 2" in err and "Traceback" not in err
    for name in ("trial-0000", "trial-0001"):
        assert (tmp_path / "two" / name / "checkpoints" / "last.pt").is_file()


def test_a_wrong_setting_is_said_by_the_trial(tmp_path: Path, photos: tuple[str, ...]) -> None:
    process = command(
        "simclr", "--grid", "loss.temprature=0.1", "--out", str(tmp_path), "--", *photos
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "temprature" in err and "Did you mean" in err
