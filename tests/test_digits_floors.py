"""Every method beats the untrained network on digits, by a floor below five measured seeds.

The settings are those of the README's table; the floors are set below the lowest
of the five seeds in benchmarks/results/digits.json, which a test checks.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"byol": 0.92, "instdisc": 0.93, "moco": 0.92, "moco-v2": 0.92, "simclr": 0.92}
"""The methods that the ordinary tests train; the others are trained by the slow session."""


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits", ROOT / "benchmarks" / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_measured_method_has_a_floor_below_its_lowest_seed(digits: ModuleType) -> None:
    measured = json.loads(digits.RESULTS.read_text())["methods"]
    assert set(measured) == set(FLOORS) == set(digits.OWN)
    for method, result in measured.items():
        assert result["settings"] == json.loads(json.dumps(digits.settings(method)))
        assert len({run["seed"] for run in result["runs"]}) == 5
        lowest = min(run["knn_top1"] for run in result["runs"])
        untrained = max(run["untrained_knn_top1"] for run in result["runs"])
        assert untrained < FLOORS[method] < lowest


@pytest.mark.parametrize("method", sorted(FLOORS))
def test_floor(digits: ModuleType, method: str) -> None:
    result = digits.run(method, seed=0)
    assert result["knn_top1"] > FLOORS[method]
    assert result["knn_top1"] > result["untrained_knn_top1"]
