"""Packages report on runs at their end and in between; nothing that fails there harms a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coview.training.outcome
import coview.training.reports
from coview.registry import entries
from coview.training.reports import VARIABLE

Run = Callable[..., Any]
REPORTER = """
import torch

def good(run):
    torch.rand(3)
    with (run.path / "told.txt").open("a") as file:
        file.write(f"{run.step} {run.whole}\\n")
    return run.path / "told.txt"

def bad(run):
    raise ValueError("no ink")

def stopped(run):
    raise KeyboardInterrupt
"""


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package with these reports, and no other that has any."""
    monkeypatch.delenv(VARIABLE)

    def install(*names: str) -> None:
        folder = tmp_path / "packages"
        info = folder / "reporter-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "reporter.py").write_text(REPORTER)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reporter\nVersion: 1.0\n")
        points = "".join(f"{name} = reporter:{name}\n" for name in names)
        (info / "entry_points.txt").write_text(f"[coview.reports]\n{points}")
        monkeypatch.syspath_prepend(folder)

        def only(kind: str) -> Any:
            return [e for e in entries(kind) if kind != "reports" or e.package == "reporter"]

        monkeypatch.setattr(coview.training.reports, "entries", only)
        monkeypatch.setattr(coview.training.outcome, "entries", only)

    return install


@pytest.fixture
def words(idx: Path, tiny: tuple[str, ...]) -> tuple[Any, ...]:
    return ("train", "simclr", "--data", f"idx:{idx}", *tiny, "--epochs", 2, "--log-every", 1)


def losses(path: Path) -> list[float]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def test_at_the_end_and_after_evaluations(
    registered: Run, run: Run, words: tuple[Any, ...], tmp_path: Path
) -> None:
    registered("good")
    answer = run(*words, "--out", "r", "--evaluate-every", 1)
    told = (tmp_path / "r" / "told.txt").read_text().splitlines()
    steps = json.loads((tmp_path / "r" / "run.json").read_text())["steps"]
    assert told == [f"{steps // 2} True", f"{steps} True", f"{steps} True"]
    assert f"report: {Path('r') / 'told.txt'}" in answer.stderr
    assert "pip install" not in answer.stderr
    # What a report draws at random changes nothing of the training.
    run(*words, "--out", "s", "--no-report")
    assert losses(tmp_path / "r") == losses(tmp_path / "s")
    assert not (tmp_path / "s" / "told.txt").exists()


def test_a_report_that_fails_is_told(
    registered: Run, run: Run, words: tuple[Any, ...], tmp_path: Path
) -> None:
    registered("bad", "good")
    answer = run(*words, "--out", "r", "--max-steps", 1, "--no-evaluate")
    assert "note: reporter could not report on this run: no ink" in answer.stderr
    assert (tmp_path / "r" / "told.txt").exists()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["finished"]


def test_ctrl_c_leaves_out_the_report_alone(
    registered: Run, run: Run, words: tuple[Any, ...]
) -> None:
    registered("stopped")
    answer = run(*words, "--out", "r", "--max-steps", 1, "--no-evaluate")
    assert "The report was left out" in answer.stderr and "To continue" not in answer.stderr


def test_without_a_package_the_end_names_one(
    registered: Run, run: Run, words: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered()
    common = (*words, "--max-steps", 1, "--no-evaluate")
    answer = run(*common, "--out", "r")
    assert answer.stderr.count("pip install ./plugins/report") == 1
    assert "plugins/report" not in run(*common, "--out", "s", "--no-report").stderr


def test_a_variable_leaves_out_all(
    registered: Run,
    run: Run,
    words: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered("good")
    monkeypatch.setenv(VARIABLE, "1")
    run(*words, "--out", "r", "--max-steps", 1, "--no-evaluate")
    assert not (tmp_path / "r" / "told.txt").exists()
