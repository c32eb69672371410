"""Killed at any moment (SIGKILL: no cleaning up), a run goes on to the very same end.

A few kills of runs here (of packs in core/tests/test_data_pack.py), a hundred with
``nox -s kills``: at a step, while a checkpoint or the export is
half written, in an evaluation before or after training, at any time, and while packing.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import METHODS, options

import coview
from coview.testing import same

STEPS = 9
PHASES = ("step", "checkpoint", "evaluation", "export", "moment")
FEW = (
    *(("byol", "step", 0.5), ("instdisc", "checkpoint", 0.7)),
    *(("moco", "evaluation", 0.9), ("simclr", "export", 0.2)),
)
MANY = [
    (METHODS[n % len(METHODS)], PHASES[n % len(PHASES)], round(random.Random(n).random(), 3))
    for n in range(90)
]
SETTINGS: dict[str, Any] = {"max_steps": STEPS, "save_every": "2", "log_every": 1}

TRAIN = """
import io, json, os, pathlib, signal, sys
import torch
torch.set_num_threads(1)
import coview
from coview.training import checkpoints, measure
from coview.training.loop import fit
from coview.training.start import Request, start
from coview.recipes.configure import Changes

wanted = json.loads(sys.argv[1])
phase, share, steps = wanted["phase"], wanted["share"], wanted["settings"]["max_steps"]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Killer:
    @coview.hookimpl
    def step_finished(self, run):
        if phase == "step" and run.step == 1 + int(share * steps):
            die()

def at_call(module, name, count, before=die):
    real, left = getattr(module, name), [1 + int(share * count)]
    def call(*given, **named):
        left[0] -= 1
        if left[0] == 0:
            before(*given) if before is not die else die()
        return real(*given, **named)
    setattr(module, name, call)

def half(state, file):
    whole = io.BytesIO()
    torch.serialization.save(state, whole)
    file.write(whole.getvalue()[: int(share * len(whole.getvalue()))])
    file.flush()
    die()

def half_exported(exported, path):
    (path.parent / f".{path.name}.{os.getpid()}.tmp").write_bytes(b"half")
    die()

if phase == "evaluation":
    at_call(measure, "evaluate_knn", 3)
elif phase == "export":
    at_call(measure, "save_backbone", 1, half_exported)
elif phase == "checkpoint":
    torch.serialization.save = torch.save
    at_call(torch, "save", 6, half)
settings = {**wanted["settings"], "device": "cpu"}
request = Request(
    method=wanted["method"], data="digits", out=pathlib.Path(wanted["out"]), settings=settings,
    changes=Changes(**wanted["changes"]),
)
if phase == "moment":  # the default of this signal ends the process as SIGKILL does
    signal.setitimer(signal.ITIMER_REAL, share * wanted["seconds"] + 0.001)
run = start(request)
run.method.observe(Killer(), "killer")
fit(run)
"""
PACK = """
import os, pathlib, signal, sys
from coview.data.base import DataSettings
from coview.data.sources import open_source
from coview.data.sources import packing
packing.FLUSHED = 1 << 14
done = 0

def told(count):
    global done
    done += count
    if done >= float(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

data = open_source("digits").load(DataSettings(resident_mib=1))
packing.pack(data, pathlib.Path(sys.argv[1]), told=told)
"""


@cache
def uninterrupted(method: str, folder: Path) -> dict[str, Any]:
    """Return what a run leaves that nothing stopped, and how long it took."""
    began = time.monotonic()
    run = coview.train(
        method,
        out=folder / method,
        device="cpu",
        progress=False,
        **SETTINGS,
        **options(method),
    )
    return end(run.path) | {"seconds": time.monotonic() - began}


def end(path: Path) -> dict[str, Any]:
    """Return what a run left: state to the bit, and metrics without times."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in li.items() if k != "images_per_second"} for li in lines]
    state = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    facts = json.loads((path / "run.json").read_text())
    return {
        **{"method": state["method"], "optimizer": state["optimizer"], "metrics": timeless},
        "weights": (path / "backbone.safetensors").read_bytes(),
        "files": sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()),
        "finished": (facts["finished"] is not None, facts["steps"]),
    }


def killed(code: str, *arguments: object) -> bool:
    """Run a script in an interpreter of its own; return whether it was killed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, -9, -14), done.stderr
    return done.returncode != 0


def kill_and_resume(
    method: str, phase: str, share: float, folder: Path, reference: dict[str, Any]
) -> None:
    out = folder / "killed"
    wanted = {"method": method, "changes": options(method), "out": str(out), "settings": SETTINGS}
    wanted |= {"phase": phase, "share": share, "seconds": reference["seconds"]}
    assert killed(TRAIN, json.dumps(wanted)) or phase == "moment"
    if not (out / "checkpoints" / "last.pt").exists():
        assert phase in ("moment", "checkpoint")  # it had just begun, and is started anew
        shutil.rmtree(out, ignore_errors=True)
        assert not killed(TRAIN, json.dumps(wanted | {"phase": "none"}))
    else:
        coview.train(resume=out, progress=False)
    found = end(out)
    for part in ("finished", "files", "metrics", "weights"):
        assert found[part] == reference[part], part
    assert same(found["method"], reference["method"])
    assert same(found["optimizer"], reference["optimizer"])


def pack_again(folder: Path, share: float) -> None:
    """Kill a pack once so much of it is done; pack again."""
    contents = []
    for out, most in ((folder / "killed", share * 1797), (folder / "whole", 1e9)):
        assert killed(PACK, out, most) == (most < 1e9)
        if most < 1e9:
            assert not out.exists() and not killed(PACK, out, 1e9)
        contents.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert contents[0] == contents[1]
    assert sorted(path.name for path in folder.iterdir()) == ["killed", "whole"]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.mark.parametrize(("method", "phase", "share"), FEW)
def test_kill(method: str, phase: str, share: float, tmp_path: Path, references: Path) -> None:
    kill_and_resume(method, phase, share, tmp_path, uninterrupted(method, references))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "phase", "share"), MANY)
def test_ninety_kills(
    method: str, phase: str, share: float, tmp_path: Path, references: Path
) -> None:
    kill_and_resume(method, phase, share, tmp_path, uninterrupted(method, references))


@pytest.mark.slow
@pytest.mark.parametrize("share", [round(random.Random(n).random(), 3) for n in range(10)])
def test_ten_killed_packs(share: float, tmp_path: Path) -> None:
    pack_again(tmp_path, share)
