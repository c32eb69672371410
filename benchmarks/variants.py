"""What digits.py leaves out: transformers, multi-crop views, and Fashion-MNIST."""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy, digits, runner

SEEDS, FASHION = (0, 1, 2), "Fashion-MNIST"

RUNS = {name: digits.arguments(table) for name, table in runner.DESIGN["variants"].items()}
OPTIONS = {"what": ("measure", "table"), "rows": RUNS, "data": accuracy.DATA}


def main(asked: runner.Asked) -> None:
    design = {"batch_size": digits.BATCH_SIZE, "settings": RUNS}
    once = functools.partial(train, data=asked.data, max_steps=2 if asked.quick else None)
    wanted = [(name, seed) for name in RUNS for seed in SEEDS[: 1 if asked.quick else None]]
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
