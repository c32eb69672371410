"""Every method on scikit-learn's digits: raw pixels, the untrained network, the trained one."""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import coview
from benchmarks import runner

SEEDS = (0, 1, 2, 3, 4)
BACKBONE, EPOCHS, BATCH_SIZE = "resnet10-quarter", 40, 64
COMMON = runner.flat(runner.DESIGN["digits"]["common"])
OWN = {method: runner.flat(table) for method, table in runner.DESIGN["digits"]["own"].items()}
# LARS moves a network this small by too little in 880 steps.
USE: dict[str, dict[str, str]] = {"byol": {"optimizer": "sgd"}}
NUMBERS = ("raw_pixels_knn_top1", "untrained_knn_top1", "knn_top1")
OPTIONS = {"rows": OWN}


def main(asked: runner.Asked) -> None:
    methods = runner.document("digits", asked.out).get("methods", {})
    seeds, steps = (SEEDS[:1], 2) if asked.quick else (SEEDS, None)
    for method in asked.only:
        used = {"settings": settings(method), "use": USE.get(method, {})}
        methods[method] = {**used, "runs": [run(method, seed, max_steps=steps) for seed in seeds]}
        design = {"backbone": BACKBONE, "epochs": EPOCHS, "batch_size": BATCH_SIZE}
        runner.write("digits", {"methods": methods, **runner.facts(), **design}, asked.out)
        runner.publish(asked, "README.md", table({"methods": methods}))


def settings(method: str) -> dict[str, Any]:
    return {**COMMON, **OWN[method]}


def arguments(table: Mapping[str, Any]) -> dict[str, Any]:
    common = settings(table["method"]) if table.get("as_on_digits") else {}
    run = {key: value for key, value in table.items() if key != "as_on_digits"}
    return {**run, "set": {**common, **runner.flat(table["set"])}}


def run(method: str, seed: int, **more: Any) -> dict[str, Any]:
    given = {"method": method, "set": settings(method), "use": USE.get(method, {}), **more}
    _, found = train(given, seed)
    return {"seed": seed, **{name: found[name] for name in ("seconds", *NUMBERS)}}


def train(given: Mapping[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    """Train, on digits unless another set is given; return the run and what was found."""
    common = {"data": "digits", "batch_size": BATCH_SIZE, "backbone": BACKBONE, "epochs": EPOCHS}
    common["preset"] = "small"  # what the settings are laid over
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        more = {"out": Path(folder) / "run", "progress": False, "seed": seed}
        trained = coview.train(**{**common, **more, **given})
    found = {"seconds": round(time.perf_counter() - started, 1)}
    values = {name: trained.value(name) for name in NUMBERS}
    found |= {name: round(value, 4) for name, value in values.items() if value is not None}
    told = {row["collapse"]: row["step"] for row in trained.metrics if "collapse" in row}
    return trained, {**found, "warned": told}


def table(document: Mapping[str, Any]) -> str:
    methods = document["methods"]
    return means("method", {name: methods[name]["runs"] for name in sorted(methods)})


def means(what: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    head = (what, "raw pixels", "untrained network", "trained network", "lowest seed")
    lines = []
    for name, seeds in runs.items():
        columns = [[100 * run[number] for run in seeds] for number in NUMBERS]
        numbers = [*map(statistics.mean, columns), min(columns[-1])]
        lines.append((name, *(f"{number:.1f}" for number in numbers)))
    return runner.markdown(head, lines)
