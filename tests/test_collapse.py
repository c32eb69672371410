"""Collapse is seen where a method's guard is taken away, and nowhere else.

The ordinary tests train each for some seconds on small digits; the slow ones are
the design of benchmarks/collapse.py, whose committed figures are checked too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import coview
from coview.training.checkpoints import read

ROOT = Path(__file__).resolve().parent.parent
COLLAPSING = ("simsiam without stop-gradient", "byol without predictor", "dino without centring")
METHODS = {
    "byol", "cmc", "cpc", "dino", "instdisc", "moco", "moco-v2", "moco-v3", "simclr", "simclr-v2",
    "simsiam", "swav",
}  # fmt: skip
SIZE: dict[str, Any] = {
    "data": "digits", "preset": "small", "image_size": 16, "batch_size": 32,
    "backbone": "resnet10-quarter", "epochs": 6, "max_steps": 120, "evaluate": False,
    "progress": False, "log_every": 10, "observe": ["collapse:every=5,patience=20"],
}  # fmt: skip
QUICK: dict[str, Any] = {"schedule.warmup_epochs": 1}
SENTENCES = {
    "simsiam without stop-gradient": "Missing: a stop-gradient",
    "byol without predictor": "Missing: a predictor (--set encoder.predictor=true)",
    "dino without centring": "Missing: centring (--set loss.centring=true)",
}


@pytest.fixture(scope="module")
def bench(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("collapse")


def quick(bench: ModuleType, name: str, out: Path, **more: Any) -> Any:
    """Train a run of the benchmark's on smaller images for fewer steps."""
    design = bench.ALL[name]
    sets = {**design["set"], **QUICK}
    return coview.train(**{**design, **SIZE, "set": sets, "out": out, **more})


@pytest.mark.parametrize("name", COLLAPSING)
def test_a_method_without_its_guard_is_warned_of(
    bench: ModuleType, tmp_path: Path, capsys: Any, name: str
) -> None:
    run = quick(bench, name, tmp_path / "run")
    told = [row for row in run.metrics if "collapse" in row]
    assert told, [row for row in run.metrics if "collapse/std" in row]
    kinds = [row["collapse"] for row in told]
    assert len(set(kinds)) == len(kinds)
    assert ("information" in kinds) is name.startswith("dino")
    err = capsys.readouterr().err
    assert err.count("warning: Collapse") == len(kinds)
    assert SENTENCES[name] in err


@pytest.mark.parametrize("name", ["simsiam", "byol", "dino"])
def test_the_same_with_it_is_not(bench: ModuleType, tmp_path: Path, capsys: Any, name: str) -> None:
    run = quick(bench, name, tmp_path / "run")
    assert len([row for row in run.metrics if "collapse/std" in row]) == 24
    assert not [row for row in run.metrics if "collapse" in row]
    assert capsys.readouterr().err == ""


def test_on_collapse_from_the_command_line(
    run: Any, idx: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """Bounds that any run breaks; what is said is data beside the metrics."""
    arguments = ["train", "simclr", "--data", f"idx:{idx}", "--epochs", 1, *tiny, "--no-evaluate"]
    watch = ("--observe", "collapse:every=1,std=2,patience=0", "--log-every", 1)
    warned = run(*arguments, "--out", tmp_path / "w", *watch)
    assert warned.stderr.count("warning: Collapse: embeddings of different images") == 1
    stopped = run(
        *arguments,
        "--out",
        tmp_path / "s",
        "--epochs",
        1,
        *watch,
        "--on-collapse",
        "stop",
        status=1,
    )
    assert "Error: Collapse:" in stopped.stderr and "Traceback" not in stopped.stderr
    state = read(tmp_path / "s" / "checkpoints" / "last.pt")
    assert state["step"] == 1
    quiet = run(*arguments, "--out", tmp_path / "i", *watch, "--on-collapse", "ignore")
    assert "Collapse" not in quiet.stderr
    lines = [json.loads(x) for x in (tmp_path / "i" / "metrics.jsonl").read_text().splitlines()]
    assert lines and not [key for row in lines for key in row if key.startswith("collapse")]
    assert json.loads((tmp_path / "i" / "run.json").read_text())["observers"] == []
    on = run("train", "--resume", tmp_path / "s", "--no-evaluate")
    assert "Collapse" not in on.stderr
    weights = coview.load_backbone(tmp_path / "s").backbone.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_what_was_measured_holds(bench: ModuleType) -> None:
    """The committed figures: each collapse is seen on three seeds, and no recipe is warned of."""
    document = json.loads((bench.runner.RESULTS / "collapse.json").read_text())
    assert set(bench.COLLAPSING) == set(COLLAPSING)
    assert set(bench.SOUND) == METHODS
    assert document["settings"] == json.loads(json.dumps(bench.ALL))
    done = {(r["name"], r["seed"], r["asked"]): r for r in document["runs"]}
    assert set(done) >= set(bench.wanted(None))
    for (name, _, _), found in done.items():
        if name in COLLAPSING:
            assert found["warned"] and min(found["warned"].values()) <= bench.STEPS
        else:
            assert found["warned"] == {}, name
    page = (ROOT / "docs" / "collapse.md").read_text(encoding="utf-8")
    assert bench.table(document["runs"]) in page, "run: python -m benchmarks collapse table"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", COLLAPSING)
def test_each_collapse_is_seen_in_time(bench: ModuleType, name: str, seed: int) -> None:
    assert bench.train(name, seed, bench.STEPS)["warned"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_recipe_is_warned_of(bench: ModuleType, name: str) -> None:
    assert bench.train(name, 0, bench.STEPS)["warned"] == {}
