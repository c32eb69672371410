"""What every question shares: options, timing in turns, medians, the machine's facts, results."""

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
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from importlib import metadata
from itertools import accumulate
from math import comb
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DESIGN: dict[str, Any] = tomllib.loads((RESULTS.parent / "design.toml").read_text("utf-8"))
LIBRARIES = (
    "torch",
    "torchvision",
    "kornia",
    "timm",
    "lightly",
    "solo-learn",
    "stable-pretraining",
)
# glibc gives tensors above 32 MiB back to the system at every free and page-faults them in
# again, up to four times the work's own cost on a CPU. Nothing is changed on a GPU.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
Asked = argparse.Namespace
Once = Callable[[], Any]
Entrants = Mapping[str, Once]
Times = dict[str, list[float]]
Found = dict[str, Any]


def asked(name: str, about: str, options: Found, words: Sequence[str]) -> Asked:
    """Return a question's options, by its defaults; set torch and the allocator as they say."""
    parser = argparse.ArgumentParser(f"python -m benchmarks {name}", description=about)
    rows, what = [str(row) for row in options.pop("rows", ())], options.pop("what", None)
    only, steady = options.pop("only", rows), options.pop("steady", False)
    if what:
        parser.add_argument("what", nargs="?", default=what[0], choices=what)
    parser.add_argument("--only", "--methods", nargs="+", metavar="ROW", help=f"of {rows}; or all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    for key, value in {"threads": 0, "out": RESULTS, **options}.items():
        kind = {"action": "store_true"} if value is False else {"type": type(value)}
        parser.add_argument(f"--{key.replace('_', '-')}", default=value, **kind)
    parser.set_defaults(name=name, error=parser.error, rounds=options.get("rounds"))
    found = parser.parse_args(words)
    found.only = rows if found.only == ["all"] else found.only or only
    if wrong := [row for row in found.only if row not in rows]:
        parser.error(f"--only: there is no row {', '.join(wrong)}, but: {', '.join(rows)}")
    if found.quick and found.out.resolve() == RESULTS:
        parser.error("--quick measures nothing: give another folder, --out FOLDER")
    if steady and not ALLOCATOR.items() <= os.environ.items():
        again = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, again, {**os.environ, **ALLOCATOR})
    found.rounds = min(found.rounds, 2) if found.rounds and found.quick else found.rounds
    if found.threads:
        import torch

        torch.set_num_threads(found.threads)
    return found


def alternate(entrants: Entrants, rounds: int = 15, warm_up: int = 2, times: int = 1) -> Times:
    """Time entrants in turn; return seconds by name, a value a round: equal positions are pairs."""
    # What is timed without torch (a process) has nothing to wait for, and need not import it.
    torch = sys.modules.get("torch")
    wait = torch.cuda.synchronize if torch and torch.cuda.is_available() else lambda: None
    entrants = {name: several(once, times) for name, once in entrants.items()}
    names, order = list(entrants), random.Random(0)
    for name in names * warm_up:
        entrants[name]()
    seconds: Times = {name: [] for name in names}
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            wait()
            started = time.perf_counter()
            entrants[name]()
            wait()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def several(once: Once, times: int) -> Once:
    return lambda: deque((once() for _ in range(times)), maxlen=0)


def compared(seconds: Times, name: str, *others: str) -> list[Found]:
    """Return the paired ratios of an entrant's time to others': median and its 95 % interval."""
    found = []
    for other in others:
        ratios = [a / b for a, b in zip(seconds[name], seconds[other], strict=True)]
        median, interval = statistics.median(ratios), median_interval(ratios)
        numbers = {"median": round(median, 4), "interval_95": [round(end, 4) for end in interval]}
        found.append({"of": name, "to": other, **numbers, "pairs": len(ratios)})
    return found


def turns(entrants: Entrants, rounds: int, warm_up: int = 2) -> Found:
    """Alternate entrants; return medians, the first one's ratios to the others, all times."""
    times = alternate(entrants, rounds, warm_up)
    return {"median_s": medians(times), "ratios": compared(times, *entrants), "raw_seconds": times}


def medians(seconds: Times) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval for the median by order statistics, without assuming a distribution."""
    # The k-th smallest and k-th largest of n values hold the median between them with probability
    # 1 - 2 P(Binomial(n, 1/2) < k); the largest k that is sure enough is taken, or the extremes.
    ordered, n, k = sorted(values), len(values), 1
    while k < n // 2 and 1 - 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n >= confidence:
        k += 1
    return ordered[k - 1], ordered[n - k]


def peak_mib(function: Once, times: int = 1) -> float:
    """Return the high-water mark, in MiB, of what torch allocates while a function runs."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    many = several(function, times)  # what one leaves behind for the next counts too
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        many()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 2)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        many()
    # Summed from the record of every allocation, so exact.
    events = profiled.profiler.kineto_results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return round(max(accumulate(sizes, initial=0)) / 2**20, 2)


def facts(rounds: int | None = None) -> Found:
    """Return what a figure is worthless without: command, date, device, threads, versions."""
    import torch

    # Not where a folder or a wheel lies on this machine.
    words = [re.sub(r"([^/=]*/)+", "", word) for word in sys.argv[1:]]
    about, cuda = Path("/proc/cpuinfo"), torch.cuda.is_available()
    models = re.findall(r"model name\s*: (.*)", about.read_text() if about.exists() else "")
    processor = f"{[*models, platform.processor()][0]}, {os.cpu_count()} cores"
    installed = {d.name: d.version for d in metadata.distributions() if d.name in LIBRARIES}
    return {
        "command": " ".join(["python -m benchmarks", *words]),
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else processor,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: installed[name] for name in LIBRARIES if name in installed},
        **({} if rounds is None else {"rounds": rounds}),
    }


def rows(asked: Asked, about: Found, measure: Callable[[str], Found], name: str = "") -> None:
    """Measure the rows that were asked for, by field of the file; keep each when it is done."""
    kept = {**facts(asked.rounds), **about}
    for row in asked.only:
        for field, found in measure(row).items():
            kept.setdefault(field, {}).update(found)
            show(found)
        write(name or asked.name, kept, asked.out)


def runs(
    asked: Asked,
    design: Found,
    key: Sequence[str],
    wanted: Iterable[Any],
    train: Callable[..., Any],
) -> list[Found]:
    """Do the runs that the file has not yet (by what ``train`` is called with); return all."""
    done = list(document(asked.name, asked.out).get("runs", []))
    known = [tuple(run[name] for name in key) for run in done]
    missing = [one for one in wanted if one not in known and one[0] in asked.only]
    missing = missing if asked.what == "measure" else []
    with ThreadPoolExecutor(vars(asked).get("processes", 1)) as pool:
        futures = [pool.submit(train, *one) for one in missing if "processes" in asked]
        # Else in this thread: a run of coview's listens to signals.
        calls = [future.result for future in futures] or [partial(train, *one) for one in missing]
        try:
            for one, call in zip(missing, calls, strict=True):
                done.append({**dict(zip(key, one, strict=True)), **call()})
                show(done[-1])
                write(asked.name, {**facts(), **design, "runs": done}, asked.out)
        finally:
            pool.shutdown(cancel_futures=True)  # after an error no other run begins
    return done


def flat(table: Found, *path: str) -> Found:
    """Return the settings of a table of design.toml by their dotted names."""
    found: Found = {}
    for key, value in table.items():
        deep = isinstance(value, dict)
        found |= flat(value, *path, key) if deep else {".".join((*path, key)): value}
    return found


def write(name: str, document: Found, folder: Path = RESULTS) -> None:
    folder.mkdir(exist_ok=True)
    text = json.dumps(_rounded(document), separators=(",", ":"))
    new = folder / f".{name}.json.new"  # so that a kill leaves a whole file
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(folder / f"{name}.json")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def document(name: str, folder: Path = RESULTS) -> Found:
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def show(found: Any, *path: object) -> None:
    """Print plain numbers (a ratio's among them), a line each; raw ones are left to the file."""
    items = found.items() if isinstance(found, Mapping) else [("", one) for one in found]
    nested = [(key, item) for key, item in items if isinstance(item, (Mapping, list, tuple))]
    plain = {k: v for k, v in items if k and ((k, v) not in nested or k == "interval_95")}
    if plain:
        print(*path, json.dumps(plain), flush=True)
    for key, item in nested:
        show(item, *path, key)


def markdown(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    first, *rest = (f"| {' | '.join(map(str, cells))} |" for cells in (head, *lines))
    return "\n".join([first, "|---" * len(head) + "|", *rest])


def publish(asked: Asked, page: str, table: str) -> None:
    """Print a question's table, and put it between the page's markers unless it is a trial."""
    print(table)
    if asked.out.resolve() == RESULTS:
        begin, end = f"<!-- {asked.name}: begin -->\n", f"<!-- {asked.name}: end -->"
        before, rest = (ROOT / page).read_text(encoding="utf-8").split(begin)
        text = f"{before}{begin}{table}\n{end}{rest.split(end)[1]}"
        (ROOT / page).write_text(text, encoding="utf-8")
