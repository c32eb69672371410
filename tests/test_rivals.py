"""Rivals are compared at an equal budget, and their figures are what they are said to be."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
LOOPS = ("lightly", "solo-learn", "stable-pretraining")
METHODS = ("simclr", "moco-v2", "byol", "simsiam", "swav", "dino")
WHEELS = [str(path) for path in ROOT.glob(".nox/wheels/solo_learn-*.whl")]


@pytest.fixture(scope="module")
def rivals(benchmark_script: Callable[[str], ModuleType]) -> Any:
    return benchmark_script("rivals")


@pytest.fixture(scope="module")
def one(benchmark_script: Callable[[str], ModuleType]) -> Any:
    return benchmark_script("rival.run")


def found(accuracies: dict[int, float], library: str = "coview", **more: Any) -> list[Any]:
    cost = {"steps": 1320, "seconds": 12.4, "start_mib": 800.0, "peak_mib": 900.0, "version": "9.1"}
    common = {"method": "byol", "library": library, "data": "moved-digits", **cost, **more}
    shown = {"untrained_knn_top1": 0.4}
    return [{**common, **shown, "seed": s, "knn_top1": v} for s, v in accuracies.items()]


def test_an_interval_is_students(rivals: Any) -> None:
    mean, half = rivals.interval([1, 2, 3, 4, 5])
    assert mean == 3
    # 2.7764 (four degrees of freedom) x 1.5811 / sqrt(5)
    assert half == pytest.approx(1.9632, abs=1e-4)
    assert rivals.interval([1, 3]) == (2, pytest.approx(12.7062, abs=1e-4))
    assert rivals.either(rivals.interval([7])[1]) == "one seed"


def test_a_difference_has_the_interval_of_two_means_of_one_variance(rivals: Any) -> None:
    difference, half = rivals.difference([1, 2, 3], [2, 3, 4])
    assert difference == 1
    # 2.7764 x 1 x sqrt(1/3 + 1/3)
    assert half == pytest.approx(2.2669, abs=1e-4)


def test_rows_that_disagree_are_named(rivals: Any) -> None:
    alike = found({0: 0.80, 1: 0.82, 2: 0.84, 3: 0.81, 4: 0.83, 5: 0.82})
    apart = found({0: 0.80, 1: 0.81, 2: 0.80, 3: 0.90, 4: 0.91, 5: 0.90}, "lightly")
    alone = found({0: 0.80, 3: 0.90}, "solo-learn")  # no interval
    said = rivals.agreement([*alike, *apart, *alone], (0, 1, 2))
    assert "1 of 2 rows disagree (by chance alone about 0.1 would)." in said
    assert said.splitlines()[-1] == "moved-digits, byol, lightly"


def test_the_table_has_a_row_for_each_method_and_library(rivals: Any) -> None:
    runs = [*found({0: 0.80, 1: 0.82, 2: 0.84}), *found({0: 0.5}, "lightly", version="1.6.0")]
    raw = {"method": "raw-pixels", "library": "none", "data": "moved-digits", "knn_top1": 0.689}
    text = rivals.table([*runs, {**raw, "seed": 0}])
    assert "coview 9.1, lightly 1.6.0" in text
    assert "Steps of every run: 1320; raw pixels: 68.9." in text
    assert "| byol | coview | 82.0 | ± 5.0 | 3 | 40.0 | 12 | 900 | 100 |" in text
    assert "| byol | lightly | 50.0 | one seed | 1 |" in text
    assert "fashion-mnist" not in text


def test_the_page_has_the_measurement(rivals: Any) -> None:
    figures = ROOT / "benchmarks" / "results" / "rivals.json"
    runs = json.loads(figures.read_text())["runs"] if figures.exists() else []
    assert rivals.table(runs) in (ROOT / "docs" / "rivals.md").read_text(encoding="utf-8")


def test_every_library_does_the_same_steps_from_the_same_weights(
    one: Any, idx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.rival import loop

    source, asked = f"idx:{idx}", loop.Asked(8, 3, 1, None, 0.01, **one.DESIGN["optimizer"])
    begun: list[Any] = []
    seen: list[bytes] = []

    class Plain(loop.Loop):  # type: ignore[misc]
        def loss(self, *views: torch.Tensor) -> torch.Tensor:
            seen.extend(view.numpy().tobytes() for view in views[0])
            total: torch.Tensor = self.trunk(views[0]).sum()
            return total

    def twice(image: Any) -> list[torch.Tensor]:
        return 2 * [torch.from_numpy(np.array(image)).float().flatten()]

    class Watched(one.Clock):
        @one.coview.hookimpl
        def run_started(self, run: Any) -> None:
            weights = run.method.encoder.backbone().state_dict()
            begun.extend([run, {name: value.clone() for name, value in weights.items()}])
            super().run_started()

    monkeypatch.setattr(one, "Clock", Watched)
    trained, _ = one.ours("simclr", "moved-digits", source, asked)
    images = one.loaded(source)
    plain = Plain(nn.Linear(3 * images.size**2, 2))
    looped = loop.train(plain, twice, images.train.images, asked)
    per_epoch = len(images.train) // 8
    assert trained["steps"] == looped["steps"] == 3 * per_epoch
    run, weights = begun
    assert len(run.data.train) == len(images.train)
    assert torch.equal(run.data.train.images, images.train.images)
    initial = one.initial(images.size, 1).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in initial.items())
    rate = loop.rates(len(images.train), per_epoch, asked)
    for step in range(3 * per_epoch):
        assert rate(step) == pytest.approx(run.schedule.rate(run.peak, step))
    first = seen[: 8 * per_epoch]
    assert len(set(first)) == len(first), "an image twice in an epoch"


def test_untrained_networks_differ_by_seed_alone(one: Any) -> None:
    first, again, other = (one.initial(32, seed).conv1.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("library", LOOPS)
def test_a_librarys_method_moves_the_trunk(one: Any, library: str, method: str) -> None:
    name = library.replace("-", "_")
    if library != "solo-learn" and importlib.util.find_spec(name) is None:
        pytest.skip(f"{library} is not installed")
    if library == "solo-learn" and not WHEELS:
        pytest.skip("solo-learn's wheel is not here")
    wheel = (WHEELS or [""])[0]
    made = importlib.import_module(f"benchmarks.rival.{name}")
    from benchmarks.rival import loop

    table, views = one.DESIGN["methods"][method], one.DESIGN["views"]
    trunk = one.initial(32, 0)
    before = {key: value.clone() for key, value in trunk.named_parameters()}
    built = made.loop(method, trunk, SimpleNamespace(**table), wheel)
    transform = made.views(method, 32, SimpleNamespace(**views, flip_p=0.0), wheel)
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    both = transform(loop.picture(images[0]))
    assert [view.shape for view in both] == 2 * [(3, 32, 32)]
    did = loop.train(built, transform, images, loop.Asked(32, 2, 0, None, 0.01, 1e-4, 0))
    assert did["steps"] == 4
    assert all(value.isfinite().all() for value in built.state_dict().values())
    moved = [key for key, value in trunk.named_parameters() if not value.equal(before[key])]
    assert len(moved) == len(before)
    assert built.evaluated("online") is trunk
    if "decay" in table:
        target = built.evaluated("target")
        assert target is not trunk
        assert not target.conv1.weight.equal(before["conv1.weight"])
        assert not target.conv1.weight.requires_grad


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "rivals", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--libraries", "lightning"), "--libraries: there is no lightning, but: coview"),
        (("--libraries", "coview,solo-learn"), "or --libraries coview"),
        (("--epochs", "2"), "--epochs is for trials: give another folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: tuple[str, ...], message: str) -> None:
    answer = script(*arguments)
    assert answer.returncode == 2
    assert message in answer.stderr


@pytest.mark.slow
def test_slow_a_quick_run_goes_through_all_rows(tmp_path: Path) -> None:
    libraries = ["coview", *(["lightly"] if importlib.util.find_spec("lightly") else [])]
    words = ("--quick", "--sets", "moved-digits", "--seeds", "0", "--out", str(tmp_path))
    answer = script(*words, "--libraries", ",".join(libraries))
    assert answer.returncode == 0, answer.stderr
    runs = json.loads((tmp_path / "rivals.json").read_text())["runs"]
    assert len(runs) == 1 + len(METHODS) * len(libraries)
    trained = [run for run in runs if run["library"] != "none"]
    assert all(run["steps"] == 2 and 0 <= run["knn_top1"] <= 1 for run in trained)
    assert all(run["peak_mib"] >= run["start_mib"] for run in trained)
    # Equal weights, and standardised inputs that batch norm makes alike.
    assert {round(run["untrained_knn_top1"], 1) for run in trained} == {0.2}
    again = script(*words, "--libraries", ",".join(libraries))
    assert "seconds" not in again.stdout.split("Measured")[0]  # all are there already


# --- the table of what each library can do --------------------------------------------------------

OWNERS = {
    "lightly": "lightly-ai/lightly",
    "lightly-train": "lightly-ai/lightly-train",
    "solo-learn": "vturrisi/solo-learn",
    "stable-pretraining": "galilai-group/stable-pretraining",
}
PINNED = re.compile(r"https://github\.com/([\w-]+/[\w-]+)/(?:blob|tree)/([0-9a-f]{8})(?:/\S+)?")


def test_each_cell_of_the_table_says_where_it_was_seen() -> None:
    text = (ROOT / "docs" / "rivals.md").read_text(encoding="utf-8")
    addresses = dict(re.findall(r"^\[([\w-]+)\]: (\S+)$", text, re.MULTILINE))
    found = [PINNED.fullmatch(address) for address in addresses.values()]
    assert all(found) and len({(each[1], each[2]) for each in found if each}) == len(OWNERS)
    table = [line for line in text.split("## What each can do")[1].splitlines() if line[:1] == "|"]
    titles, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table)
    assert titles == ["", "coview", *OWNERS] and len(rows) > 20
    for feature, ours, *others in rows:
        (place, *_) = re.findall(r"\]\(([^)#]+)", ours)
        assert (ROOT / "docs" / place).exists(), feature
        for cell, owner in zip(others, OWNERS.values(), strict=True):
            names = re.findall(r"\]\[([\w-]+)\]", cell)
            assert names, f"{feature}, {owner}: a cell without a source"
            assert all(f"github.com/{owner}/" in addresses[name] for name in names), feature
