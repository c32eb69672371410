"""A long run on a small network: memory stays flat, and steps do not slow down.

It trains on the embedded digits, looks at the process after every hundred
steps and times every step, compares an early thousand with the last thousand,
and ends with 1 if a promise is broken. Linux: it reads /proc.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import coview
from benchmarks import runner

# Python's and the allocator's free lists settle, and metrics are kept: a few hundred bytes a line.
MOST_GROWTH_MIB = 8.0
MOST_SLOWER = 1.1


WINDOW, EVERY = 1000, 100
OPTIONS = {"steps": 20_000, "method": "moco-v2", "threads": 1}


def main(asked: runner.Asked) -> None:
    if asked.steps < 4 * WINDOW:
        asked.error(f"--steps must be {4 * WINDOW} or more: two windows of {WINDOW} are compared")
    with tempfile.TemporaryDirectory() as folder:
        result = measured(asked.steps, asked.method, Path(folder) / "run")
    problems, windows = broken(result), "medians of steps 1001-2000 and of the last 1000"
    print(result)
    document = {**runner.facts(), **result, "windows": windows, "broken": problems}
    runner.write("soak", document, asked.out)
    for problem in problems:
        print(f"broken: {problem}", file=sys.stderr)
    sys.exit(bool(problems))


class Watch:
    """Times steps; counts memory and open files."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.resident: list[float] = []
        self.files: list[int] = []
        self.last = (0.0, 0.0)

    @coview.hookimpl
    def run_started(self) -> None:
        self.last = (time.perf_counter(), time.process_time())

    @coview.hookimpl
    def step_finished(self, run: Any) -> None:
        now = (time.perf_counter(), time.process_time())
        self.wall.append(1e3 * (now[0] - self.last[0]))
        self.cpu.append(1e3 * (now[1] - self.last[1]))
        if run.step % EVERY == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            self.files.append(len(list(Path("/proc/self/fd").iterdir())))
        self.last = (time.perf_counter(), time.process_time())


def measured(steps: int, method: str, out: Path) -> dict[str, Any]:
    watch = Watch()
    coview.train(
        method,
        data="digits",
        backbone="resnet10-quarter",
        image_size=16,
        batch_size=16,
        epochs=-(-steps // (1437 // 16)),
        set={"backbone.stem": "7x7", "encoder.hidden": 64, "negatives.size": 512},
        device="cpu",
        max_steps=steps,
        save_every="2000",
        evaluate=False,
        progress=False,
        observe=[watch],
        out=out,
    )

    def pair(values: list[Any], window: int, digits: int) -> list[float]:
        # The first window warms up allocators and caches.
        parts = values[window : 2 * window], values[-window:]
        return [round(median(part), digits) for part in parts]

    return {
        "method": method,
        "steps": len(watch.wall),
        "step_ms": pair(watch.wall, WINDOW, 3),
        "step_cpu_ms": pair(watch.cpu, WINDOW, 3),
        "resident_mib": pair(watch.resident, WINDOW // EVERY, 1),
        "resident_mib_largest": round(max(watch.resident), 1),
        "open_files": pair(watch.files, WINDOW // EVERY, 0),
        "open_files_most": max(watch.files),
    }


def broken(result: dict[str, Any]) -> list[str]:
    """Return the promises that a result breaks."""
    (small, large), files = result["resident_mib"], result["open_files"]
    problems = []
    # A neighbour on the machine during the early steps would hide what processor time shows.
    for clock in ("step_ms", "step_cpu_ms"):
        early, late = result[clock]
        if late > MOST_SLOWER * early:
            problems.append(f"{clock} was {early} and then {late}")
    if large - small > MOST_GROWTH_MIB:
        problems.append(f"memory grew from {small} MiB to {large} MiB")
    if files[1] > files[0]:
        problems.append(f"open files grew from {files[0]} to {files[1]}")
    return problems
