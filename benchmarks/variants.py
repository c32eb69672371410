"""What digits.py leaves out: transformers, multi-crop views, and Fashion-MNIST."""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy, digits, runner

SEEDS = (0, 1, 2)
FASHION = "Fashion-MNIST"


RUNS = {name: digits.arguments(table) for name, table in runner.DESIGN["variants"].items()}
OPTIONS = {"what": ("measure", "table"), "rows": RUNS, "data": accuracy.DATA}


def main(asked: runner.Asked) -> None:
    design, seeds = {"batch_size": digits.BATCH_SIZE, "settings": RUNS}, SEEDS
    once = functools.partial(train, data=asked.data)
    if asked.quick:
        seeds, once = SEEDS[:1], functools.partial(once, max_steps=2)
    wanted = [(name, seed) for name in RUNS for seed in seeds]
    found = runner.runs(asked, design, ("name", "seed"), wanted, once)
    runner.publish(asked, "docs/learning.md", table(found))


def train(name: str, seed: int, data: Path, **more: Any) -> dict[str, Any]:
    given = {**RUNS[name], **more}
    with tempfile.TemporaryDirectory() as folder:
        if given.get("data") == FASHION:
            accuracy.first_images(data, Path(folder))
            given["data"] = f"idx:{folder}"
        return digits.train(given, seed)[1]


def table(found: Sequence[dict[str, Any]]) -> str:
    by_name = {name: [run for run in found if run["name"] == name] for name in RUNS}
    return digits.means("run", {name: mine for name, mine in by_name.items() if mine})
