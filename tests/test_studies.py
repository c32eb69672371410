"""Studies: a stranger's is run, killed and resumed, and ends with the same table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coview.registry import entries
from coview.studies import Study, Variant, find_study
from coview.studies.jobs import RESULT, Asked, jobs, unique

MINE = """
from coview.studies import KNN, UNTRAINED, Above, Alike, Study, Variant

rates = Study(
    claim="a rate of .01 trains and one of 1e-6 does not",
    source="this test",
    common=Variant(
        method="simclr", data="digits", backbone="resnet10-quarter", batch_size=256, epochs=2,
        set={"backbone.stem": "7x7"},
    ),
    variants={
        "usual": Variant(set={"optimizer.lr": 1.0}),
        "tiny": Variant(set={"optimizer.lr": 1e-6}),
        "usual again": Variant(set={"optimizer.lr": 1.0}),
    },
    measure={"knn": KNN, "untrained": UNTRAINED},
    expect=(Alike("usual", "usual again", 1e-6), Above("usual", "tiny:untrained", by=-1.0)),
)
"""
ASKED = ("--seeds", 2, "--max-steps", 3, "--processes", 1)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return "mine.py:rates"


def results(folder: Path) -> dict[str, dict[str, float]]:
    return {
        path.parent.name: json.loads(path.read_text())["values"]
        for path in folder.glob(f"runs/*/{RESULT}")
    }


def test_a_strangers_study_runs_and_goes_on(run: Any, mine: str, tmp_path: Path) -> None:
    first = run("study", "run", mine, *ASKED, "--budget", "0.01s", "--out", "short", status=1)
    assert "No seed is complete" in first.stderr
    answer = run("study", "run", mine, *ASKED)
    assert "Verdict: supported" in answer.stdout
    # Two variants that are the same are one run.
    assert len(results(tmp_path / "studies")) == 4
    found = json.loads((tmp_path / "studies" / "mine-rates.json").read_text())
    usual, again = (found["variants"][name]["runs"] for name in ("usual", "usual again"))
    assert [one["run"] for one in usual] == [one["run"] for one in again]
    assert found["verdict"] == "supported" and found["seeds"] == [0, 1]
    assert all(run["steps"] == 3 for run in usual)
    drawn = (tmp_path / "studies" / "mine-rates.svg").read_text()
    assert drawn.count("usual again") and "kNN top-1" in drawn
    # Nothing is left to do, and the answer is the same.
    again = run("study", "run", mine, *ASKED)
    assert "4 of 4 runs are done already" in again.stderr
    assert again.stdout == answer.stdout


def test_a_killed_study_ends_with_the_same_table(
    mine: str, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Runs keep their number of threads, and other numbers form sums in another order.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = run("study", "run", mine, *ASKED, "--out", "whole").stdout
    words = [str(word) for word in ("study", "run", mine, *ASKED, "--out", "killed")]
    child = subprocess.Popen(
        [sys.executable, "-m", "coview", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: list((tmp_path / "killed").glob("runs/*/metrics.jsonl")))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert len(results(tmp_path / "killed")) < 4
    ended = run("study", "run", mine, *ASKED, "--out", "killed").stdout
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    times = [line for line in whole.splitlines() if line.startswith("-")]
    assert times == [line for line in ended.splitlines() if line.startswith("-")]


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this never happened"
        time.sleep(0.05)


@pytest.mark.parametrize("seeds", [0, 1_001, 2**64 + 1])
def test_a_run_for_each_seed_has_its_limits(run: Any, seeds: int) -> None:
    for words in (("study", "run", "moco/queue"), ("compare", "simclr", "byol")):
        said = run(*words, "--seeds", seeds, status=2).errors[-1]
        assert f"{seeds} is not in the range 1<=x<=1000" in said


def test_a_wrong_variant_is_found_before_the_first_run(
    refused: Any, tmp_path: Path, mine: str
) -> None:
    text = MINE.replace('"optimizer.lr": 1e-6', '"optimizer.rl": 1e-6')
    (tmp_path / "mine.py").write_text(text)
    (problem,) = refused("study", "run", mine)
    assert problem.startswith("Variant 'tiny': optimizer 'adamw'") and "'rl'" in problem
    assert not (tmp_path / "studies").exists()


def test_wrong_requests(refused: Any, tmp_path: Path, mine: str) -> None:
    assert "like 90s, 10m or 2h, not 'ten'" in refused("study", "run", mine, "--budget", "ten")[0]
    assert "There is no file" in refused("study", "run", "other.py:x")[0]
    assert "Did you mean 'rates'" in refused("study", "run", "mine.py:rate")[0]
    assert "There is no study called" in refused("study", "run", "no/such")[0]


def test_a_study_without_data_asks_for_some(refused: Any, tmp_path: Path, mine: str) -> None:
    (tmp_path / "mine.py").write_text(MINE.replace('data="digits", ', ""))
    for problem in refused("study", "run", mine):
        assert "names no data set: give one with --data" in problem


def test_a_failed_run_is_named_and_the_others_are_kept(run: Any, tmp_path: Path, mine: str) -> None:
    text = MINE.replace('"untrained": UNTRAINED', '"untrained": Quantity("no_such", "", True)')
    text = text.replace("UNTRAINED, Above", "Quantity, Above").replace("tiny:untrained", "tiny")
    (tmp_path / "mine.py").write_text(text)
    answer = run("study", "run", mine, "--seeds", 1, "--max-steps", 1, status=1)
    assert "Variant 'usual', seed 0: The run logged no 'no_such'" in answer.stderr


EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "example_study.py"
STUDIES = [entry.name for entry in entries("studies")]


def here(study: Study) -> Variant:
    """Return other data for a study whose own must be downloaded."""
    return Variant(data="moved-digits" if study.common.data == "fashion-mnist" else None)


@pytest.mark.parametrize("name", [*STUDIES, f"{EXAMPLE}:longer"])
def test_every_study_is_whole(name: str) -> None:
    """All its variants are requests that could be run, in its short form too."""
    study = find_study(name)
    assert study.claim and study.source and study.expect
    for quick in (False, True):
        asked = Asked(name=name, seeds=(0,), quick=quick, changes=here(study))
        assert len(unique(jobs(study, asked))) >= 1
    used = {term.partition(":")[0] for one in study.expect for term in one.terms}
    assert used <= set(study.variants)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_to_a_verdict(run: Any, name: str) -> None:
    run("study", "run", name, "--quick", "--max-steps", 2, "--seeds", 1)
