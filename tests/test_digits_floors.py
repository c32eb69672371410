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
"""Of the methods that the ordinary tests train."""
SLOW = {"dino": 0.92, "moco-v3": 0.93, "simclr-v2": 0.93, "simsiam": 0.908, "swav": 0.92}
"""Of those that the slow session trains."""


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
    floors = FLOORS | SLOW
    assert set(measured) == set(floors) == set(digits.OWN)
    for method, result in measured.items():
        assert result["settings"] == json.loads(json.dumps(digits.settings(method)))
        assert len({run["seed"] for run in result["runs"]}) == 5
        lowest = min(run["knn_top1"] for run in result["runs"])
        untrained = max(run["untrained_knn_top1"] for run in result["runs"])
        assert untrained < floors[method] < lowest, method


@pytest.mark.parametrize("method", sorted(FLOORS))
def test_floor(digits: ModuleType, method: str) -> None:
    above(digits.run(method, seed=0), FLOORS[method])


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(SLOW))
def test_slow_floor(digits: ModuleType, method: str) -> None:
    above(digits.run(method, seed=0), SLOW[method])


def above(result: dict[str, float], floor: float) -> None:
    assert result["knn_top1"] > floor
    assert result["knn_top1"] > result["untrained_knn_top1"]
