"""What every question shares: options, timing in turns, medians, the machine's facts, results.

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
import re
import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from importlib import metadata
from math import comb
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DESIGN: dict[str, Any] = tomllib.loads((RESULTS.parent / "design.toml").read_text("utf-8"))
"""Sizes and settings, by question."""
LIBRARIES = ("torch", "torchvision", "kornia", "timm", "lightly", "solo-learn")
# glibc gives tensors above 32 MiB back to the system at every free and page-faults them in
# again, up to four times the work's own cost on a CPU. Nothing is changed on a GPU.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}

Asked = argparse.Namespace
"""The options, and a question's `name`."""
Entrants = Mapping[str, Callable[[], Any]]
Times = dict[str, list[float]]


# -- Options ------------------------------------------------------------------------------------


def asked(name: str, about: str, options: Mapping[str, Any], words: Sequence[str]) -> Asked:
    """Return the options of a question, with torch and the allocator as they say.

    Args:
        name: of the question.
        about: what `--help` says.
        options: defaults by name, of the question's own options and of those that all have.
            Of a tuple `what` the first is the default; `rows` are those that `--only` may
            name; `steady` is set where the allocator would count for much.
        words: as they are typed.
    """
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(f"python -m benchmarks {name}", None, about, "", [], plain)
    rows, what = [str(row) for row in options.get("rows", ())], options.get("what")
    if what:
        parser.add_argument("what", nargs="?", default=what[0], choices=what)
    parser.add_argument("--only", "--methods", nargs="+", metavar="ROW", help=f"of {rows}; or all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    own = {k: v for k, v in options.items() if k not in ("rows", "what", "only", "steady")}
    for key, value in {"threads": 0, **own}.items():
        kind = (
            {"action": "store_true"} if value is False else {"type": type(value), "default": value}
        )
        parser.add_argument(f"--{key.replace('_', '-')}", **kind)
    parser.set_defaults(name=name, error=parser.error, rounds=own.get("rounds"))
    found = parser.parse_args(words)
    found.only = rows if found.only == ["all"] else found.only or options.get("only", rows)
    wrong = [row for row in found.only if row not in rows]
    if wrong:
        parser.error(f"--only: there is no row {', '.join(wrong)}, but: {', '.join(rows)}")
    if found.quick and found.out.resolve() == RESULTS:
        parser.error("--quick measures nothing: give another folder, --out FOLDER")
    if options.get("steady") and any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
        again = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, again, {**os.environ, **ALLOCATOR})
    if found.rounds and found.quick:
        found.rounds = min(found.rounds, 2)
    if found.threads:
        import torch

        torch.set_num_threads(found.threads)
    return found


def device() -> str:
    """Return where a question is measured: on the GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# -- Times and memory ---------------------------------------------------------------------------


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
    # What is timed without torch (a process) has nothing to wait for, and need not import it.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
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


def beside(seconds: Times, name: str) -> list[dict[str, Any]]:
    """Return the paired ratios of one entrant to each of the others."""
    return [compared(seconds, name, other) for other in seconds if other != name]


def several(once: Callable[[], Any], times: int) -> Callable[[], None]:
    """Return so many calls as one."""

    def many() -> None:
        for _ in range(times):
            once()

    return many


def medians(seconds: Times) -> dict[str, float]:
    """Return the median seconds of each entrant."""
    return {name: statistics.median(values) for name, values in seconds.items()}


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
    from torch.profiler import ProfilerActivity, profile

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 2)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    now = high = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            high = max(high, now)
    return round(high / 2**20, 2)


# -- Results ------------------------------------------------------------------------------------


def facts(rounds: int | None = None) -> dict[str, Any]:
    """Return what a figure is worthless without: command, date, device, threads, versions."""
    import torch

    # Not where a folder or a wheel lies on this machine.
    words = [re.sub(r"([^/=]*/)+", "", word) for word in sys.argv[1:]]
    cuda = torch.cuda.is_available()
    return {
        "command": " ".join(["python -m benchmarks", *words]),
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


def rows(
    asked: Asked, about: dict[str, Any], measure: Callable[[str], Any], name: str = ""
) -> None:
    """Measure the rows that were asked for; show and keep each as soon as it is done.

    Args:
        asked: the options.
        about: what the file says beside rows and facts.
        measure: of a row's name, what is added to each field of the file.
        name: of the file, in place of the question's.
    """
    kept = {**facts(asked.rounds), **about}
    for row in asked.only:
        for field, found in measure(row).items():
            kept.setdefault(field, {}).update(found)
            show(found, row)
        write(name or asked.name, kept, asked.out)


def runs(
    asked: Asked,
    design: Mapping[str, Any],
    key: Sequence[str],
    wanted: Iterable[tuple[Any, ...]],
    train: Callable[..., Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Do the runs that the file has not yet, and keep each as soon as it is done; return all.

    With ``table`` for what was asked, none is done.

    Args:
        asked: the options; `processes` runs are done at once, a process each.
        design: what the file says beside runs and facts.
        key: the names of what tells runs apart.
        wanted: what that is, a tuple a run.
        train: of such a tuple, what was found.
    """
    done = list(document(asked.name, asked.out).get("runs", []))
    known = [tuple(run[name] for name in key) for run in done]
    missing = [one for one in wanted if one not in known and one[0] in asked.only]
    for one, found in _done(train, missing if asked.what == "measure" else [], asked):
        done.append({**dict(zip(key, one, strict=True)), **found})
        show(done[-1])
        write(asked.name, {**facts(), **design, "runs": done}, asked.out)
    return done


def _done(train: Callable[..., Any], wanted: Sequence[Any], asked: Asked) -> Iterator[Any]:
    if "processes" not in asked:  # in this thread: a run of coview's listens to signals
        yield from ((one, train(*one)) for one in wanted)
        return
    with ThreadPoolExecutor(asked.processes) as pool:
        running = {pool.submit(train, *one): one for one in wanted}
        try:
            yield from ((running[future], future.result()) for future in as_completed(running))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error no other run begins


def flat(table: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """Return the settings of a table of design.toml by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        whole = (*path, key)
        found |= flat(value, *whole) if isinstance(value, dict) else {".".join(whole): value}
    return found


def write(name: str, document: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``NAME.json``, to results/ unless told; floats of raw times keep six digits."""
    path = folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_rounded(document), separators=(",", ":")) + "\n", encoding="utf-8")
    return path


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def document(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return what ``NAME.json`` holds; nothing where there is no such file."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def show(found: Any, *path: object) -> None:
    """Print ratios and plain numbers, a line each; lists of raw ones are left to the file."""
    if isinstance(found, Mapping) and found.keys() >= {"of", "interval_95"}:
        low, high = found["interval_95"]
        said = f"{found['of']} / {found['to']}: {found['median']:.4f} ({low:.4f} to {high:.4f})"
        print(*path, said, flush=True)
    elif isinstance(found, Mapping):
        plain = {k: v for k, v in found.items() if not isinstance(v, (Mapping, list, tuple))}
        if plain:
            print(*path, json.dumps(plain), flush=True)
        for key, value in found.items():
            show(value, *path, key)
    elif isinstance(found, list) and found and isinstance(found[0], Mapping):
        for one in found:
            show(one, *path)


def markdown(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a table."""
    first, *rest = (f"| {' | '.join(map(str, cells))} |" for cells in (head, *lines))
    return "\n".join([first, "|---" * len(head) + "|", *rest])


def publish(asked: Asked, page: Path, table: str) -> None:
    """Print a question's table, and put it between the page's markers unless it is a trial."""
    print(table)
    if asked.out.resolve() == RESULTS:
        begin, end = f"<!-- {asked.name}: begin -->\n", f"<!-- {asked.name}: end -->"
        before, rest = page.read_text(encoding="utf-8").split(begin)
        _, after = rest.split(end)
        page.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")
