"""Every method beats the untrained network on digits, by a floor below five measured seeds.

The settings are those of the README's table; the floors are set below the lowest
of the five seeds in benchmarks/results/digits.json, which a test checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"byol": 0.92, "instdisc": 0.93, "moco": 0.92, "moco-v2": 0.92, "simclr": 0.92}
"""Of the methods that the ordinary tests train."""
SLOW = {"dino": 0.92, "moco-v3": 0.93, "simclr-v2": 0.93, "simsiam": 0.908, "swav": 0.92}
"""Of those that the slow session trains."""


VARIANTS = {
    "dino, Fashion-MNIST": 0.74,
    "dino, ViT": 0.43,
    "moco-v3, Fashion-MNIST": 0.75,
    "moco-v3, ViT": 0.72,
    "simsiam, Fashion-MNIST": 0.738,
    "swav, Fashion-MNIST": 0.76,
    "swav, multi-crop": 0.908,
}
"""Of benchmarks/variants.py, on three seeds."""


@pytest.fixture(scope="module")
def digits(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("digits")


@pytest.fixture(scope="module")
def variants(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("variants")


def test_every_measured_method_has_a_floor_below_its_lowest_seed(digits: ModuleType) -> None:
    measured = json.loads((digits.runner.RESULTS / "digits.json").read_text())["methods"]
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


def test_every_variant_has_a_floor_below_its_lowest_seed(variants: ModuleType) -> None:
    document = json.loads((variants.runner.RESULTS / "variants.json").read_text())
    assert document["settings"] == json.loads(json.dumps(variants.RUNS))
    assert set(VARIANTS) == set(variants.RUNS)
    for name, floor in VARIANTS.items():
        runs = [run for run in document["runs"] if run["name"] == name]
        assert {run["seed"] for run in runs} == set(variants.SEEDS)
        lowest = min(run["knn_top1"] for run in runs)
        untrained = max(run["untrained_knn_top1"] for run in runs)
        assert untrained < floor < lowest, name
        assert not any(run["warned"] for run in runs)
    page = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    assert variants.table(document["runs"]) in page, "run: python -m benchmarks variants table"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_slow_variant_floor(variants: ModuleType, name: str) -> None:
    data = variants.accuracy.DATA
    if variants.FASHION in name and not data.is_dir():
        pytest.skip("Fashion-MNIST is not on this machine")
    above(variants.train(name, 0, data), VARIANTS[name])


def above(result: dict[str, float], floor: float) -> None:
    assert result["knn_top1"] > floor
    assert result["knn_top1"] > result["untrained_knn_top1"]
