"""Killed at any step (SIGKILL: no cleaning up), a run goes on to the very same end."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import METHODS, options

import coview
from coview.testing import same

STEPS = 9
FEW = (("byol", 5), ("instdisc", 8), ("moco", 3), ("simclr", 1))
MANY = [(METHODS[n % len(METHODS)], random.Random(n).randint(1, STEPS)) for n in range(50)]

TRAIN = """
import json, os, pathlib, signal, sys
import torch
torch.set_num_threads(1)
import coview
from coview.training.loop import fit
from coview.training.start import Request, start
from coview.recipes.configure import Changes

class Killer:
    def __init__(self, number):
        self.number = number

    @coview.hookimpl
    def step_finished(self, run):
        if run.step == self.number:
            os.kill(os.getpid(), signal.SIGKILL)

wanted = json.loads(sys.argv[1])
changes = Changes(backbone="resnet10-quarter", **wanted["changes"])
request = Request(
    method=wanted["method"], data="digits", changes=changes, out=pathlib.Path(wanted["out"]),
    settings={
        "max_steps": wanted["steps"], "save_every": "2", "log_every": 1, "evaluate": False
    },
)
run = start(request)
run.method.observe(Killer(wanted["kill"]), "killer")
fit(run)
"""


@cache
def uninterrupted(method: str, folder: Path) -> dict[str, Any]:
    """Return the checkpoint and the metrics of a run that nothing stopped."""
    run = coview.train(
        method,
        backbone="resnet10-quarter",
        out=folder / method,
        max_steps=STEPS,
        save_every="2",
        log_every=1,
        evaluate=False,
        progress=False,
        **options(method),
    )
    return end(run.path)


def end(path: Path) -> dict[str, Any]:
    """Return what a run left: state to the bit, and metrics without times."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in li.items() if k != "images_per_second"} for li in lines]
    state = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    return {"method": state["method"], "optimizer": state["optimizer"], "metrics": timeless}


def kill_and_resume(method: str, kill: int, folder: Path, reference: dict[str, Any]) -> None:
    out = folder / "killed"
    wanted = {
        "method": method,
        "changes": options(method),
        "out": str(out),
        "steps": STEPS,
        "kill": kill,
    }
    command = [sys.executable, "-c", TRAIN, json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -9, done.stderr
    if not (out / "checkpoints" / "last.pt").exists():
        assert kill <= 2  # nothing was due yet; such a run starts anew
        return
    coview.train(
        resume=out, max_steps=STEPS, save_every="2", log_every=1, evaluate=False, progress=False
    )
    resumed = end(out)
    assert resumed["metrics"] == reference["metrics"]
    assert same(resumed["method"], reference["method"])
    assert same(resumed["optimizer"], reference["optimizer"])


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.mark.parametrize(("method", "kill"), FEW)
def test_kill(method: str, kill: int, tmp_path: Path, references: Path) -> None:
    kill_and_resume(method, kill, tmp_path, uninterrupted(method, references))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kill"), MANY)
def test_fifty_kills(method: str, kill: int, tmp_path: Path, references: Path) -> None:
    kill_and_resume(method, kill, tmp_path, uninterrupted(method, references))
