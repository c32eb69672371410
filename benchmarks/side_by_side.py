"""What every benchmark here does: entrants take turns in one process, and pairs are compared.

A single time on a shared machine means little; a ratio of two that ran one after
the other means more. So entrants are alternated round by round (in an order drawn
for each, so that none always follows the same one), each round gives a ratio, and
what is reported is the median of the ratios with a 95 % interval of that median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib import metadata
from math import comb
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = ("torch", "torchvision", "kornia", "timm", "lightly", "solo-learn")
# glibc gives tensors above 32 MiB back to the system at every free and page-faults them in
# again, up to four times the work's own cost on a CPU. Nothing is changed on a GPU.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}

Entrants = Mapping[str, Callable[[], Any]]
Times = dict[str, list[float]]


def steady_allocator() -> None:
    """Start this script again with an allocator that keeps what it has; call it first."""
    if any(os.environ.get(key) != value for key, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})


def alternate(entrants: Entrants, rounds: int = 15, warm_up: int = 2) -> Times:
    """Time entrants in turn.

    Args:
        entrants: by name, what one round of each does.
        rounds: timed rounds.
        warm_up: rounds before those: caches, compilation, the allocator.

    Returns:
        Seconds by name, a value for each round; equal positions are pairs.
    """
    names = list(entrants)
    for _ in range(warm_up):
        for name in names:
            entrants[name]()
    seconds: Times = {name: [] for name in names}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            _wait()
            started = time.perf_counter()
            entrants[name]()
            _wait()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compared(seconds: Times, name: str, baseline: str) -> dict[str, Any]:
    """Return the paired ratios time(name) / time(baseline): median and its 95 % interval."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[baseline], strict=True)]
    low, high = median_interval(ratios)
    return {
        "of": name,
        "to": baseline,
        "median": round(statistics.median(ratios), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "pairs": len(ratios),
    }


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval for the median by order statistics, without assuming a distribution.

    The k-th smallest and k-th largest of n values hold the median between them
    with probability 1 - 2 P(Binomial(n, 1/2) < k); the largest k that is sure
    enough is taken, or the extremes where n is too small to be.
    """
    ordered, n = sorted(values), len(values)
    k = 1
    while k < n // 2 and 1 - 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n >= confidence:
        k += 1
    return ordered[k - 1], ordered[n - k]


def peak_mib(function: Callable[[], Any]) -> float:
    """Return the high-water mark, in MiB, of what torch allocates while ``function`` runs.

    On a CPU it is summed from the profiler's record of every allocation, so it
    is exact and does not depend on the system's allocator.
    """
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 2)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    now = high = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            high = max(high, now)
    return round(high / 2**20, 2)


def facts(rounds: int | None = None) -> dict[str, Any]:
    """Return what a figure is worthless without: command, date, device, threads, versions."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
        **({} if rounds is None else {"rounds": rounds}),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
    return f"{model or platform.processor()}, {os.cpu_count()} cores"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def write(name: str, document: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``NAME.json``, to results/ unless told; floats of raw times keep six digits."""
    path = folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_rounded(document), indent=2) + "\n", encoding="utf-8")
    return path


def document(name: str) -> dict[str, Any]:
    """Return what ``results/NAME.json`` holds; nothing where there is no such file."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def runs(name: str) -> list[dict[str, Any]]:
    """Return the runs that ``results/NAME.json`` has; none where there is no such file."""
    found = document(name)
    return list(found["runs"]) if found else []


def put(page: Path, name: str, table: str) -> None:
    """Put a table between a page's markers of that name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")


def add_quick(parser: argparse.ArgumentParser) -> None:
    """Let a script be tried with tiny sizes, whose figures go elsewhere."""
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS)


def refuse_quick_results(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with an error where a trial would overwrite measurements."""
    if options.quick and options.out.resolve() == RESULTS:
        parser.error("--quick measures nothing: give another folder, --out FOLDER")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
