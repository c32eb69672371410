"""A long run on a small network: memory stays flat, and steps do not slow down.

    python benchmarks/soak.py [--steps 20000] [--method moco-v2]

It trains on the embedded digits, looks at the process after every hundred
steps and times every step, compares an early thousand with the last thousand,
writes ``benchmarks/results/soak.json`` and ends with 1 if a promise is broken.
Linux: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

import coview

RESULT = Path(__file__).parent / "results" / "soak.json"
WINDOW, EVERY = 1000, 100
# Python's and the allocator's free lists settle, and metrics are kept: a few hundred bytes a line.
MOST_GROWTH_MIB = 8.0
MOST_SLOWER = 1.1


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
        self.wall.append(now[0] - self.last[0])
        self.cpu.append(now[1] - self.last[1])
        if run.step % EVERY == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            self.files.append(len(list(Path("/proc/self/fd").iterdir())))
        self.last = (time.perf_counter(), time.process_time())


def measured(steps: int, method: str, out: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    watch = Watch()
    per_epoch = 1437 // 16
    coview.train(
        method,
        data="digits",
        backbone="resnet10-quarter",
        image_size=16,
        batch_size=16,
        epochs=-(-steps // per_epoch),
        set={"backbone.stem": "7x7", "encoder.hidden": 64, "negatives.size": 512},
        device="cpu",
        max_steps=steps,
        save_every="2000",
        evaluate=False,
        progress=False,
        observe=[watch],
        out=out,
    )
    # The first thousand warms up allocators and caches.
    early, late = slice(WINDOW, 2 * WINDOW), slice(-WINDOW, None)
    seen, last = slice(WINDOW // EVERY, 2 * WINDOW // EVERY), slice(-WINDOW // EVERY, None)

    def pair(values: list[Any], first: slice, second: slice, digits: int) -> list[float]:
        return [round(median(values[first]), digits), round(median(values[second]), digits)]

    return {
        "method": method,
        "steps": len(watch.wall),
        "step_ms": pair([1e3 * t for t in watch.wall], early, late, 3),
        "step_cpu_ms": pair([1e3 * t for t in watch.cpu], early, late, 3),
        "resident_mib": pair(watch.resident, seen, last, 1),
        "resident_mib_largest": round(max(watch.resident), 1),
        "open_files": pair(watch.files, seen, last, 0),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--method", default="moco-v2")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.steps < 4 * WINDOW:
        parser.error(f"--steps must be {4 * WINDOW} or more: two windows of {WINDOW} are compared")
    with tempfile.TemporaryDirectory() as folder:
        result = measured(arguments.steps, arguments.method, Path(folder) / "run")
    problems = broken(result)
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    document = {**result, **machine, "windows": "medians of steps 1001-2000 and of the last 1000"}
    arguments.out.write_text(json.dumps({**document, "broken": problems}, indent=2) + "\n")
    print(json.dumps(document, indent=2))
    for problem in problems:
        print(f"broken: {problem}", file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
