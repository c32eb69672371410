"""A checkpoint whose numbers cannot be a run's is refused, with the name of the field."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coview
from coview.errors import CoviewError

IMAGES = np.random.RandomState(0).randint(0, 256, (48, 16, 16, 3), np.uint8)
GIVEN: dict[str, Any] = {"data": IMAGES, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps of four."""
    out = tmp_path_factory.mktemp("crafted") / "r"
    options: dict[str, Any] = {"preset": "small", "backbone": "resnet10-quarter"}
    options |= {"batch_size": 16, "epochs": 2}
    options |= {"max_steps": 2, "evaluate": False, "observe": ["csv"]}
    return coview.train("moco", out=out, **options, **GIVEN).path


def setting(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: Any) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


def group(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return setting("optimizer", "param_groups", 0, name, value=value)


def buffers(state: dict[str, Any]) -> dict[str, Any]:
    return next(iter(state["optimizer"]["state"].values()))


def other_shape(state: dict[str, Any]) -> None:
    buffers(state)["momentum_buffer"] = torch.zeros(7)


def without_number(state: dict[str, Any]) -> None:
    buffer = buffers(state)["momentum_buffer"]
    buffer[(0,) * buffer.dim()] = math.nan


def no_weight(state: dict[str, Any]) -> None:
    name = next(name for name in state["method"] if name.endswith("weight"))
    weight = state["method"][name]
    weight[(0,) * weight.dim()] = math.inf


def a_weight_less(state: dict[str, Any]) -> None:
    del state["method"][next(iter(state["method"]))]


def wide_weight(state: dict[str, Any]) -> None:
    name = next(iter(state["method"]))
    state["method"][name] = torch.zeros(3, 3, 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            setting("step", value=-1),
            r"step must be a whole number from 0 to \d{16}, not -1",
        ),
        (setting("step", value=10**18), r"step must be .*, not 1000000000000000000"),
        (setting("step", value=7), r"step must be a whole number from 0 to 6, not 7"),
        (setting("step", value=2.5), r"step must be .*, not 2\.5"),
        (setting("step", value=True), r"step must be .*, not True"),
        (setting("step", value="2"), r"step must be .*, not '2'"),
        (setting("identity", value=3), r"identity must be a table, not 3"),
        (setting("identity", "recipe", value="epochs = ["), r"identity\.recipe .*TOML"),
        (setting("identity", "recipe", value=7), r"identity\.recipe .*TOML"),
        (group("lr", math.nan), r"param_groups\.0\.lr .*nan"),
        (group("momentum", -math.inf), r"param_groups\.0\.momentum must be finite"),
        (group("weight_decay", 1e400), r"weight_decay .*inf"),
        (group("params", [0, 10**9]), r"optimizer"),
        (setting("optimizer", "param_groups", value=5), r"optimizer\.param_groups"),
        (setting("optimizer", value=None), r"optimizer must be a table, not None"),
        (setting("scaler", value={"scale": math.nan}), r"scaler\.scale .*nan"),
        (setting("random", value=torch.zeros(3)), r"random"),
        (setting("random", value=7), r"random"),
        (setting("owed", value={"entries": -5, "means": {}}), r"owed\.entries .*-5"),
        (setting("owed", value=[1]), r"owed must be a table"),
        (setting("observers", value=4), r"observers must be a table, not 4"),
        (other_shape, r"optimizer\.state\.0\.momentum_buffer has shape \(7,\)"),
        (without_number, r"optimizer\.state\.0\.momentum_buffer .*finite"),
        (no_weight, r"method\.components\.\S+weight .*finite"),
        (a_weight_less, r"method.*Missing key"),
        (wide_weight, r"method.*size mismatch for components"),
        (setting("method", value=[1]), r"method must be a table"),
    ],
)
def test_crafted_numbers(
    run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "r"))
    for file in (copy / "checkpoints").iterdir():
        state = torch.load(file, weights_only=True)
        change(state)
        torch.save(state, file)
    with pytest.raises(CoviewError, match=rf"last\.pt is damaged: .*{named}"):
        coview.train(resume=copy, max_steps="none", **GIVEN)


def test_what_was_saved_is_accepted(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "r"))
    assert coview.train(resume=copy, max_steps="none", **GIVEN).step == 6
