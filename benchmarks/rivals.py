"""Is coview as accurate as its rivals at an equal budget? Six methods, four libraries, two sets."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any

from scipy.stats import t as student

from benchmarks import accuracy, runner

NAME, KEY = "rivals", ("method", "library", "data", "seed")
DESIGN = runner.DESIGN[NAME]
METHODS, LIBRARIES, SETS = DESIGN["methods"], DESIGN["libraries"], DESIGN["data"]
RAW, SEEDS = "raw-pixels", (0, 1, 2)
# A library's module; solo-learn's losses are read out of its wheel.
NEEDED = {"lightly": "lightly", "stable-pretraining": "stable_pretraining"}
OPTIONS = {
    "what": ("measure", "table", "agree"),
    "rows": (*METHODS, RAW),
    "libraries": ",".join(LIBRARIES),
    "sets": ",".join(SETS),
    "seeds": ",".join(map(str, SEEDS)),
    "data": accuracy.DATA,
    "solo_learn": "",
    "processes": 2,
    "epochs": 0,
}
Runs = Sequence[Mapping[str, Any]]


def main(asked: runner.Asked) -> None:
    seeds = tuple(int(seed) for seed in asked.seeds.split(","))
    if asked.epochs and asked.out.resolve() == runner.RESULTS:
        asked.error("--epochs is for trials: give another folder, --out FOLDER")
    design = {"design": {key: value for key, value in DESIGN.items() if key != "brings"}}
    design["epochs"] = asked.epochs or "of the design"
    before = {**design, **runner.document(NAME, asked.out)}
    if any(before[key] != value for key, value in json.loads(json.dumps(design)).items()):
        raise SystemExit(f"{NAME}.json has runs of another design: take it away.")
    if asked.what == "measure":
        refuse_missing(asked)
    libraries, sets = asked.libraries.split(","), asked.sets.split(",")

    def once(*one: Any) -> dict[str, Any]:
        return run(one, asked)

    wanted = [(RAW, "none", data, 0) for data in sets]
    wanted += [(m, lib, d, s) for s in seeds for d in sets for m in METHODS for lib in libraries]
    found = runner.runs(asked, design, KEY, wanted, once)
    if asked.what == "agree":
        print(agreement(found, seeds))
    else:
        runner.publish(asked, "docs/rivals.md", table(found))


def refuse_missing(asked: runner.Asked) -> None:
    """Stop before the first run if a library is not there."""
    libraries, sets = asked.libraries.split(","), asked.sets.split(",")
    for option, words, known in (("libraries", libraries, LIBRARIES), ("sets", sets, SETS)):
        if wrong := set(words) - set(known):
            asked.error(f"--{option}: there is no {', '.join(wrong)}, but: {', '.join(known)}")
    absent = [lib for lib in libraries if not has(NEEDED.get(lib))]
    absent += ["solo-learn"] if "solo-learn" in libraries and not asked.solo_learn else []
    if absent:
        there = ",".join(lib for lib in libraries if lib not in absent)
        asked.error(
            f"{', '.join(absent)} not found (solo-learn: --solo-learn WHEEL). "
            f"nox -s 'benchmark(rivals)' gets all; or --libraries {there}"
        )


def has(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


def run(one: Sequence[Any], asked: runner.Asked) -> dict[str, Any]:
    """Train once, in a process of its own with one thread: the network is too small for more."""
    given = dict(zip(KEY, one, strict=True))
    fashion = given["data"] == "fashion-mnist"
    given["source"] = f"idx:{asked.data}" if fashion else given["data"]
    given |= {"wheel": asked.solo_learn, "quick": asked.quick, "epochs": asked.epochs}
    command = [sys.executable, "-m", "benchmarks.rival.run", json.dumps(given)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    more: Any = {"check": True, "text": True, "env": environment, "cwd": runner.ROOT}
    done = subprocess.run(command, stdout=subprocess.PIPE, **more)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half its 95 % interval by Student's t; one value has none."""
    if len(values) < 2:
        return statistics.fmean(values), nan
    deviation = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), quantile(len(values) - 1) * deviation


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Return the difference of two means and half its 95 % interval, of one common variance."""
    free = len(first) + len(second) - 2
    squares = sum(statistics.pvariance(values) * len(values) for values in (first, second))
    deviation = (squares / free * (1 / len(first) + 1 / len(second))) ** 0.5 if free else nan
    return statistics.fmean(second) - statistics.fmean(first), quantile(free) * deviation


def quantile(free: int) -> float:
    return float(student.ppf(0.975, free)) if free else nan


def rows_of(found: Runs) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """Return the runs of each row of the table: data set, method, library."""
    order = [(d, m, lib) for d in SETS for m in METHODS for lib in LIBRARIES]
    rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {row: [] for row in order}
    for one in found:
        if one["method"] != RAW:
            rows[one["data"], one["method"], one["library"]].append(one)
    return {row: sorted(runs, key=lambda r: r["seed"]) for row, runs in rows.items() if runs}


def table(found: Runs) -> str:
    head = ("method", "library", "kNN top-1", "95 %", "seeds", "untrained")
    head += ("seconds", "peak MiB", "training's")
    raw = {one["data"]: one["knn_top1"] for one in found if one["method"] == RAW}
    parts = [versions(found)]
    for data in SETS:
        rows = {row: runs for row, runs in rows_of(found).items() if row[0] == data}
        steps = sorted({one["steps"] for runs in rows.values() for one in runs})
        pixels = f"; raw pixels: {100 * raw[data]:.1f}" if data in raw else ""
        title = f"## {data}\n\nSteps of every run: {', '.join(map(str, steps))}{pixels}.\n\n"
        lines = [line(row, runs) for row, runs in rows.items()]
        parts += [title + runner.markdown(head, lines)] if lines else []
    return "\n\n".join(parts)


def line(row: tuple[str, str, str], runs: Runs) -> Sequence[object]:
    _, method, library = row
    mean, half = interval([100 * one["knn_top1"] for one in runs])
    untrained = 100 * statistics.fmean(one["untrained_knn_top1"] for one in runs)
    cost = ("seconds", "peak_mib", "start_mib")
    seconds, peak, start = (statistics.fmean(one[name] for one in runs) for name in cost)
    shown = (f"{mean:.1f}", either(half), len(runs), f"{untrained:.1f}")
    return (method, library, *shown, f"{seconds:.0f}", f"{peak:.0f}", f"{peak - start:.0f}")


def either(half: float) -> str:
    return f"± {half:.1f}" if half == half else "one seed"


def versions(found: Runs) -> str:
    told = {one["library"]: one["version"] for one in found if "version" in one}
    named = [f"{library} {told[library]}" for library in LIBRARIES if library in told]
    return f"Measured: {', '.join(named) or 'nothing yet'}."


def agreement(found: Runs, seeds: Iterable[int]) -> str:
    """Compare the means of these seeds with those of all others; name rows that disagree."""
    lines, wrong, these = [], [], set(seeds)
    for row, runs in rows_of(found).items():
        first, second = (
            [100 * one["knn_top1"] for one in runs if (one["seed"] in these) == mine]
            for mine in (True, False)
        )
        if len(first) < 2 or len(second) < 2:
            continue
        (a, x), (b, y), (d, half) = interval(first), interval(second), difference(first, second)
        apart = abs(d) > half
        wrong += [", ".join(row)] if apart else []
        cells = (f"{a:.2f} ± {x:.2f}", f"{b:.2f} ± {y:.2f}", f"{d:+.2f} ± {half:.2f}")
        overlap = "yes" if abs(d) <= x + y else "no"
        lines.append((*row, *cells, overlap, "no" if apart else "yes"))
    head = ("data", "method", "library", "these seeds", "others", "difference", "overlap", "agree")
    chance = f"by chance alone about {0.05 * len(lines):.1f} would"
    said = [f"{len(wrong)} of {len(lines)} rows disagree ({chance}).", *wrong]
    return "\n".join([runner.markdown(head, lines), "", *said])
