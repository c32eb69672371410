"""The benchmarks count what they say they count, and refuse what they cannot measure."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
HAS_LIGHTLY = importlib.util.find_spec("lightly") is not None
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")


@pytest.fixture
def load(benchmark_script: Callable[[str], ModuleType]) -> Callable[[str], Any]:
    return benchmark_script


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)


def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Law = Callable[[Callable[[int, int], float]], dict[str, Any]]


@pytest.fixture
def law(load: Any, monkeypatch: pytest.MonkeyPatch) -> Law:
    """Fit a law whose rounds take the seconds of (size, round) in place of real ones."""
    scaling = load("scaling")
    one = scaling.Law(
        (2, 8, 32, 128, 512),
        {"work": 2},
        {"table": 1},
        lambda size, device: ({"work": lambda: None}, {"table": 3.0 * size}),
        {"work": 2},
    )

    def fit(seconds: Callable[[int, int], float]) -> dict[str, Any]:
        def alternate(entrants: Any, rounds: int, warm_up: int) -> dict[str, list[float]]:
            sizes = {name: int(name.split()[-1]) for name in entrants}
            return {n: [seconds(size, turn) for turn in range(rounds)] for n, size in sizes.items()}

        monkeypatch.setattr(scaling.runner, "alternate", alternate)
        monkeypatch.setattr(scaling, "repeated", lambda function: (function, 1))
        found: dict[str, Any] = scaling.measured(one, 5, "cpu")
        return found

    return fit


def test_an_exponent_is_that_of_the_power_law(law: Law) -> None:
    result = law(lambda size, turn: (1 + turn) * size**2)
    assert result["times"]["work"]["exponent"] == pytest.approx(2)
    assert result["times"]["work"]["interval_95"] == pytest.approx([2, 2])
    assert result["memory"]["table"] == pytest.approx(1)


def test_what_does_not_grow_is_left_out_beyond(law: Law) -> None:
    result = law(lambda size, turn: 1e5 + 3 * size**2)
    assert result["times"]["work"]["exponent"] < 1.2
    assert result["times"]["work beyond 2"]["exponent"] == pytest.approx(2, abs=0.01)


def test_an_interval_is_as_wide_as_the_rounds_differ(law: Law) -> None:
    result = law(lambda size, turn: size ** (1 + 0.1 * turn))
    assert result["times"]["work"]["exponent"] == pytest.approx(1.2)
    assert result["times"]["work"]["interval_95"] == pytest.approx([1.0, 1.4])


def test_every_law_says_what_it_measures(load: Any) -> None:
    scaling = load("scaling")
    for name, one in scaling.LAWS.items():
        ratios = {b / a for a, b in zip(one.sizes, one.sizes[1:], strict=False)}
        assert ratios == {4}, name
        assert one.sizes[-1] / one.sizes[-scaling.UPPER] >= 10, name
        assert set(one.beyond) <= set(one.times), name


def test_operations_are_counted_where_work_is_given(load: Any) -> None:
    x, weight = torch.ones(3, 4), torch.ones(2, 4)

    def work() -> None:
        y = torch.nn.functional.linear(x, weight)  # made of others: a product, and views
        y.view(-1).add_(1)
        torch._foreach_mul_([x, weight], 2.0)
        torch.empty(5)

    assert load("step").operations(work) == {"mm": 1, "add_": 1, "_foreach_mul_": 1}


def test_a_compiled_step_dispatches_few_operations_and_no_step_waits() -> None:
    document = json.loads((FOLDER / "results" / "step-operations.json").read_text())
    assert all(row["host waits"] == 0 for row in document["summary"].values())
    for method in ("simclr", "moco-v2", "byol"):
        assert 0 < document["summary"][f"{method}, compiled"]["beyond bare"] <= 60
        assert document["summary"][f"{method}, eager"]["beyond bare"] > 60


def test_memory_is_of_all_methods_of_images(load: Any) -> None:
    from coview.recipes.recipe import method_names

    assert set(method_names()) - set(load("memory").methods()) == {"cpc-audio"}


def test_a_step_takes_its_views_more_than_the_bare_step(load: Any) -> None:
    found = load("memory").ours("simclr", 64, backbone="resnet10-quarter", count=256)
    views = 2 * 64 * 3 * 32 * 32 * 4 / 2**20
    assert views <= found["beyond MiB"] <= 3 * views
    assert found["step MiB"] > found["bare MiB"] > 10 * views


def test_what_is_kept_has_the_queue(load: Any) -> None:
    memory = load("memory")
    few, many = (
        memory.ours("moco", 16, backbone="resnet10-quarter", count=count) for count in (256, 8192)
    )
    # Without labels none are held out; 128 numbers for each image more.
    rows = (8192 - 256) * 128 * 4 / 2**20
    grown = many["kept between steps MiB"] - few["kept between steps MiB"]
    assert grown == pytest.approx(rows, abs=0.2)


def test_traffic_is_what_operations_read_and_write(load: Any) -> None:
    a, b = torch.ones(8, 16), torch.ones(16, 4)
    product = load("gpu").traffic_of(lambda: (a @ b).T)  # a view moves nothing
    assert product == 4 * (8 * 16 + 16 * 4 + 8 * 4)


def test_the_peak_is_the_devices(load: Any) -> None:
    peak_of = load("gpu").peak_of
    assert peak_of("NVIDIA H200").bandwidth == 4.8e12
    assert peak_of("NVIDIA H100 80GB HBM3").bandwidth == 3.35e12
    assert peak_of("NVIDIA H100 PCIe").flops == 756e12
    assert peak_of("NVIDIA H200 NVL") is None
    assert peak_of("AMD EPYC, 2 cores") is None


Parts = Callable[[dict[str, Any], float], dict[str, Any]]


@pytest.fixture
def done(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Parts:
    """Do parts of one's own within so many seconds; return what is written of them."""
    gpu = load("gpu")

    def run(parts: dict[str, Any], seconds: float) -> dict[str, Any]:
        monkeypatch.setattr(gpu, "PARTS", parts)
        document = {"table": "gpu", "parts": {}}
        table = gpu.Table("some-gpu", tmp_path, gpu.QUICK, "cpu", None, document)
        gpu.run(table, list(parts), seconds)
        written: dict[str, Any] = json.loads((tmp_path / "some-gpu.json").read_text())["parts"]
        return written

    return run


def test_a_failure_is_noted_without_a_path_and_the_next_part_is_done(
    done: Parts, tmp_path: Path
) -> None:
    def breaks(table: Any) -> None:
        table.row("first", lambda: {"images/s": 3})
        written = json.loads((tmp_path / "some-gpu.json").read_text())["parts"]
        assert written["breaks"]["summary"] == {"first": {"images/s": 3}}
        table.row("second", lambda: json.loads((tmp_path / "there").read_text()))
        raise RuntimeError(f"no part in {tmp_path}/deep")

    def works(table: Any) -> None:
        table.row("third", lambda: {"ratios": [{"median": 2}]})

    parts = done({"breaks": (breaks, 0.5), "works": (works, 0.5)}, 60)
    assert parts["breaks"]["missing"]["all of it"] == "RuntimeError: no part in deep"
    assert parts["breaks"]["missing"]["second"].startswith("FileNotFoundError")
    assert str(tmp_path) not in json.dumps(parts)
    assert parts["works"]["ratios"] == [{"row": "third", "median": 2}]


def test_no_row_begins_when_the_time_is_over(done: Parts) -> None:
    import time

    def slow(table: Any) -> None:
        table.row("long", lambda: time.sleep(0.3) or {"done": 1})
        table.row("late", lambda: {"done": 1})

    def quick(table: Any) -> None:
        table.row("in time", lambda: {"done": 1})

    parts = done({"slow": (slow, 0.004), "quick": (quick, 0.996)}, 60)
    assert parts["slow"]["summary"] == {"long": {"done": 1}}
    assert parts["slow"]["missing"] == {"late": "no time was left for it"}
    assert parts["quick"]["summary"] == {"in time": {"done": 1}}


def test_a_call_goes_on_where_one_was_killed(load: Any, tmp_path: Path) -> None:
    """A process is killed within its second row; the next call measures that one and the rest."""
    code = """
import os, sys, time
from pathlib import Path
from benchmarks import gpu, runner
out = Path(sys.argv[1])
def rows(table):
    for name in ("first", "second", "third"):
        def row(name=name):
            with (out / "calls").open("a") as file:
                print(name, file=file, flush=True)
            if name == "second" and (out / "calls").read_text().count("second") == 1:
                os.kill(os.getpid(), 9)
            return {"of": name}
        table.row(name, row)
gpu.PARTS = {"before": (lambda t: t.row("one", lambda: {"n": 1}), 0.5), "rows": (rows, 0.5)}
document = {**runner.facts(), "table": "gpu", "parts": {}}
document["parts"] = gpu.before("some-gpu", out, document)
gpu.run(gpu.Table("some-gpu", out, gpu.QUICK, "cpu", None, document), list(gpu.PARTS), 60)
"""
    for status in (-9, 0, 0):
        words = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    parts = json.loads((tmp_path / "some-gpu.json").read_text())["parts"]
    assert (tmp_path / "calls").read_text().split() == ["first", "second", "second", "third"]
    assert list(parts["rows"]["summary"]) == ["first", "second", "third"]
    assert parts["before"]["summary"] == {"one": {"n": 1}}
    assert not parts["rows"]["missing"]


def test_another_devices_rows_are_not_gone_on_with(load: Any, tmp_path: Path) -> None:
    gpu, facts = load("gpu"), {"device": "A", "python": "3", "libraries": {"torch": "2"}}
    (tmp_path / "a.json").write_text(json.dumps({**facts, "parts": {"knn": {}}}))
    assert gpu.before("a", tmp_path, facts) == {"knn": {}}
    for other in ({"device": "B"}, {"python": "4"}, {"libraries": {"torch": "3"}}):
        assert gpu.before("a", tmp_path, {**facts, **other}) == {}
    assert gpu.before("none", tmp_path, facts) == {}


def test_the_page_says_whether_there_is_a_gpus_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = figures()
    for file in page.RESULTS.glob("[a-z]*.json"):
        if json.loads(file.read_text()).get("table") != "gpu":
            (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "_accuracy", list)
    assert "Not yet measured on a GPU" in page.text()
    ratio = {"row": "simclr", "of": "step", "to": "bare", "median": 1.04, "pairs": 15}
    part = {
        "summary": {"simclr": {"images/s": 30000}},
        "ratios": [{**ratio, "interval_95": [1.02, 1.05]}],
        "missing": {"byol": "no time was left for it"},
    }
    facts = {"command": "python -m benchmarks gpu", "device": "NVIDIA H200", "date": "2026-01-01"}
    sheet = {"flops": 989e12, "bandwidth": 4.8e12, "source": "its data sheet"}
    document = {**facts, "table": "gpu", "data_sheet": sheet, "parts": {"step": part}}
    (tmp_path / "nvidia-h200.json").write_text(json.dumps(document))
    text = page.text()
    assert "Not yet measured" not in text
    assert "## On a GPU: NVIDIA H200" in text
    assert "| simclr | step / bare | 1.040 | 1.020 to 1.050 | 15 |" in text
    assert "| simclr | 30000 |" in text
    assert "- byol: no time was left for it" in text
    assert "989 TFLOP/s" in text


@NO_CUDA
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "There is no CUDA device here; --device cpu --quick tries the script."),
        (("--device", "cpu"), "--device cpu and --quick go together"),
        (("--device", "cpu", "--quick"), "--quick measures nothing: give another folder"),
    ],
)
def test_the_gpus_table_is_refused_without_one(arguments: tuple[str, ...], message: str) -> None:
    answer = script("gpu", *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr


@pytest.mark.slow
@NO_CUDA
def test_slow_the_gpus_table_is_made_from_end_to_end(tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (FOLDER / "results").iterdir()}
    answer = script(
        "gpu", "--device", "cpu", "--quick", "--seconds", "3000", "--out", str(tmp_path)
    )
    assert answer.returncode == 0, answer.stderr
    document = json.loads((tmp_path / "cpu-quick.json").read_text())
    assert str(tmp_path) not in json.dumps(document)
    parts = ["tests", "host synchronisations", "step", "memory", "training", "views", "kernels"]
    parts += ["losses", "knn"]
    assert list(document["parts"]) == parts
    waits = document["parts"]["host synchronisations"]["summary"]
    assert {name: row["host waits"] for name, row in waits.items()} == dict.fromkeys(waits, 0)
    assert {"simclr", "moco", "byol", "swav", "dino", "cpc"} <= set(waits)
    missing = {
        row: why for part in document["parts"].values() for row, why in part["missing"].items()
    }
    if HAS_LIGHTLY:
        assert all(row.endswith("solo-learn's loss") for row in missing), missing
    steps = document["parts"]["step"]
    assert {ratio["of"] for ratio in steps["ratios"]} == {"step", "views"}
    assert steps["summary"]["simclr, resnet10-quarter at 32, eager"]["GFLOP an image"] > 0.01
    assert {file: file.stat().st_mtime_ns for file in (FOLDER / "results").iterdir()} == before


@pytest.mark.slow
@NO_CUDA
@pytest.mark.parametrize("name", ["scaling", "memory"])
def test_slow_a_quick_run_goes_to_another_folder(name: str, tmp_path: Path) -> None:
    assert script(name, "--quick").returncode == 2
    answer = script(name, "--quick", "--out", str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    document = json.loads((tmp_path / f"{name}.json").read_text())
    assert len(document["summary"]) >= 10


def beside_itself(name: str, row: str, file: Path) -> dict[str, Any]:
    """Measure a row of a benchmark beside the revision that this is; return what is written."""
    answer = script(name, "--quick", "--only", row, "--other", "HEAD", "--out", str(file.parent))
    assert answer.returncode == 0, answer.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    return document


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="for a clone: revisions come from git")
def test_slow_a_step_is_timed_beside_a_checked_one_and_another_revisions(tmp_path: Path) -> None:
    document = beside_itself("overhead", "simclr", tmp_path / "overhead.json")
    this = document["revisions"][0]
    assert document["revisions"] == [this, this]
    pairs = {(ratio["of"], ratio["to"]) for ratio in document["rows"]["simclr"]["ratios"]}
    checked = "records checked in every step"
    assert pairs == {("step", f"step of {this}"), (checked, "step")}
    assert all(len(seconds) == 2 for seconds in document["rows"]["simclr"]["seconds"].values())


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="for a clone: revisions come from git")
def test_slow_reading_is_timed_beside_another_revisions(tmp_path: Path) -> None:
    document = beside_itself("data", "packed", tmp_path / "data-before.json")
    this = document["revisions"][0]
    (ratio,) = document["packed"]["ratios"]
    assert (ratio["of"], ratio["to"], ratio["pairs"]) == ("now", this, 2)


def test_crops_of_whole_images_are_compared_with_equal_ones(load: Any, tmp_path: Path) -> None:
    whole = load("whole")
    paths = whole.photographs(tmp_path, 4)
    asked = Namespace(batch=2, workers=0)
    mine = [[crop.shape for crop in crops] for crops in whole.ours(paths, "bicubic", 0, asked)]
    with Image.open(paths[0]) as image:
        theirs = [crop.shape for crop in whole.Two("bicubic")(image)]
    assert mine == [[(2, *shape) for shape in theirs]] * 2
    assert theirs == [(3, 224, 224)] * 2
