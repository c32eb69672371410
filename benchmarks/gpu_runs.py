"""Parts of the GPU's table that are whole programs: the tests that need one, and trainings."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coview
from benchmarks.runner import ROOT

NUMBERS = ("raw_pixels_knn_top1", "untrained_knn_top1", "knn_top1")


def tests(file: str, seconds: float) -> dict[str, Any]:
    """Run a file of tests in a process of its own; return how many passed, failed, were skipped."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file]
    began = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    counts = {
        what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)
    }
    if done.returncode and not counts:
        raise RuntimeError((done.stderr or done.stdout)[-300:])
    failed = re.findall(r"^(?:FAILED|ERROR) \S+::(\S+)", done.stdout, re.MULTILINE)
    found = {"passed": 0, "failed": 0, "skipped": 0, **counts}
    found["seconds"] = round(time.monotonic() - began, 1)
    return {**found, "which failed": "; ".join(failed) or "-"}


def training(method: str, given: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Train a method as a user would; return its accuracies and how long it took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = coview.train(method, out=Path(folder) / "run", device=device, progress=False, **given)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), "steps": run.step}
    return found | {name: run.value(name) for name in NUMBERS}
