"""Every method on scikit-learn's digits: raw pixels, the untrained network, the trained one.

    python -m benchmarks digits demo       trains one method and prints the three
    python -m benchmarks digits measure    five seeds of every method, or of those in --only;
                                           writes results/digits.json and the README's table

Each method's `small` preset at 32 pixels, changed only as design.toml says, and said
there why. It is a check that methods learn, not a comparison of methods.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import coview
from benchmarks import runner

SEEDS = (0, 1, 2, 3, 4)
DEMO = "moco-v2"
BACKBONE, EPOCHS, BATCH_SIZE = "resnet10-quarter", 40, 64
COMMON = runner.flat(runner.DESIGN["digits"]["common"])
OWN = {method: runner.flat(table) for method, table in runner.DESIGN["digits"]["own"].items()}
# LARS moves a network this small by too little in 880 steps.
USE: dict[str, dict[str, str]] = {"byol": {"optimizer": "sgd"}}
NUMBERS = ("raw_pixels_knn_top1", "untrained_knn_top1", "knn_top1")
OPTIONS = {"what": ("measure", "demo"), "rows": OWN}


def main(asked: runner.Asked) -> None:
    if asked.what == "demo":
        demo()
        return
    methods = runner.document("digits", asked.out).get("methods", {})
    for method in asked.only:
        runs = [run(method, seed, **quick(asked)) for seed in SEEDS[: 1 if asked.quick else None]]
        used = {"settings": settings(method), "use": USE.get(method, {})}
        methods[method] = {**used, "runs": runs}
        runner.show(methods[method], method)
        design = {"backbone": BACKBONE, "epochs": EPOCHS, "batch_size": BATCH_SIZE}
        document = {"methods": methods, **runner.facts(), **design}
        runner.write("digits", document, asked.out)
        runner.publish(asked, runner.ROOT / "README.md", table(document))


def demo() -> None:
    """Train from the command line, as a user would, and show the command."""
    sets = [f"--set={key}={json.dumps(value)}" for key, value in settings(DEMO).items()]
    numbers = [f"--epochs={EPOCHS}", f"--batch-size={BATCH_SIZE}"]
    command = ["train", DEMO, "--data=digits", f"--backbone={BACKBONE}", *numbers, *sets]
    print("coview", " ".join(command), flush=True)
    # The network is too small for more threads to help, and with one the run
    # does not suffer from whatever else the machine is doing.
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "coview", *command, f"--out={folder}/run"]
        subprocess.run(command, check=True, env=one_thread)


def settings(method: str) -> dict[str, Any]:
    """Return what is set for a method on digits."""
    return {**COMMON, **OWN[method]}


def quick(asked: runner.Asked) -> dict[str, Any]:
    """Return what makes a trial's run short."""
    return {"max_steps": 2} if asked.quick else {}


def run(method: str, seed: int, **more: Any) -> dict[str, Any]:
    """Train once; return the three accuracies and the seconds it took."""
    given = {"method": method, "set": settings(method), "use": USE.get(method, {}), **more}
    trained, seconds = train(given, seed)
    return {"seed": seed, "seconds": seconds, **accuracies(trained)}


def train(given: Mapping[str, Any], seed: int) -> tuple[Any, float]:
    """Train on digits unless another set is given; return the run and its seconds."""
    common = {"data": "digits", "batch_size": BATCH_SIZE, "backbone": BACKBONE, "epochs": EPOCHS}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        more = {"out": Path(folder) / "run", "progress": False, "seed": seed}
        trained = coview.train(**{**common, **more, **given})
    return trained, round(time.perf_counter() - started, 1)


def accuracies(trained: Any) -> dict[str, float]:
    """Return the three accuracies of a run."""
    return {number: round(trained.value(number), 4) for number in NUMBERS}


def warned(trained: Any) -> dict[str, int]:
    """Return the signs of collapse that a run was warned of, with the step of each."""
    return {row["collapse"]: row["step"] for row in trained.metrics if "collapse" in row}


def table(document: Mapping[str, Any]) -> str:
    """Return the README's table in Markdown."""
    methods = document["methods"]
    return means("method", {name: methods[name]["runs"] for name in sorted(methods)})


def means(what: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the means over seeds, and the lowest trained one, in Markdown."""
    head = (what, "raw pixels", "untrained network", "trained network", "lowest seed")
    lines = []
    for name, seeds in runs.items():
        columns = [[100 * run[number] for run in seeds] for number in NUMBERS]
        numbers = [*map(statistics.mean, columns), min(columns[-1])]
        lines.append((name, *(f"{number:.1f}" for number in numbers)))
    return runner.markdown(head, lines)
