"""A long run on a small network: memory stays flat, and steps do not slow down."""

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
    result = measured(asked.steps, asked.method)
    windows = "medians of steps 1001-2000 and of the last 1000"
    document = {**runner.facts(), **result, "windows": windows, "broken": broken(result)}
    runner.write("soak", document, asked.out)
    print(result)
    sys.exit("; ".join(document["broken"]) or 0)


class Watch:
    """Times steps, by the wall and the processor; counts memory and open files."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = [[], []]
        self.resident: list[float] = []
        self.files: list[int] = []

    @coview.hookimpl
    def run_started(self) -> None:
        self.last = (time.perf_counter(), time.process_time())

    @coview.hookimpl
    def step_finished(self, run: Any) -> None:
        now = (time.perf_counter(), time.process_time())
        for clock, values in enumerate(self.steps):
            values.append(1e3 * (now[clock] - self.last[clock]))
        if run.step % EVERY == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            self.files.append(len(list(Path("/proc/self/fd").iterdir())))
        self.last = (time.perf_counter(), time.process_time())


def measured(steps: int, method: str) -> dict[str, Any]:
    watch, epochs = Watch(), -(-steps // (1437 // 16))
    given = runner.DESIGN["soak"] | {"observe": [watch], "max_steps": steps, "epochs": epochs}
    with tempfile.TemporaryDirectory() as folder:
        coview.train(
            method, out=Path(folder) / "run", **{**given, "set": runner.flat(given["set"])}
        )

    def pair(values: list[Any], window: int, digits: int) -> list[float]:
        # The first window warms up allocators and caches.
        parts = values[window : 2 * window], values[-window:]
        return [round(median(part), digits) for part in parts]

    return {
        "method": method,
        "steps": len(watch.steps[0]),
        "step_ms": pair(watch.steps[0], WINDOW, 3),
        "step_cpu_ms": pair(watch.steps[1], WINDOW, 3),
        "resident_mib": pair(watch.resident, WINDOW // EVERY, 1),
        "resident_mib_largest": round(max(watch.resident), 1),
        "open_files": pair(watch.files, WINDOW // EVERY, 0),
        "open_files_most": max(watch.files),
    }


def broken(result: dict[str, Any]) -> list[str]:
    # A neighbour on the machine during the early steps would hide what processor time shows.
    slower = {name: MOST_SLOWER * result[name][0] for name in ("step_ms", "step_cpu_ms")}
    most = {**slower, "open_files": result["open_files"][0]}
    most["resident_mib"] = result["resident_mib"][0] + MOST_GROWTH_MIB
    grown = {name: result[name] for name, limit in most.items() if result[name][1] > limit}
    return [f"{name} grew from {early} to {late}" for name, (early, late) in grown.items()]
