"""What digits.py leaves out: transformers, multi-crop views, and Fashion-MNIST.

    python -m benchmarks variants measure [--data DIR]    three seeds of each run in design.toml
    python -m benchmarks variants table                   ... into docs/learning.md

Networks small enough for a processor, for some hundred steps. It is a check that
these parts of the recipes learn; a transformer of this size needs far more steps
than these on images of 8 pixels, and raw pixels are better than either here.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy, digits, runner

SEEDS = (0, 1, 2)
FASHION = "Fashion-MNIST"


def arguments(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``coview.train`` that a table of design.toml stands for."""
    own = {key: value for key, value in table.items() if key != "as_on_digits"}
    own["set"] = runner.flat(own["set"])
    if "as_on_digits" in table:
        own["set"] = {**digits.settings(own["method"]), **own["set"]}
        own = {"backbone": digits.BACKBONE, "epochs": digits.EPOCHS, **own}
    return own


RUNS = {name: arguments(table) for name, table in runner.DESIGN["variants"].items()}
OPTIONS = {"what": ("measure", "table"), "rows": RUNS, "data": accuracy.DATA}


def main(asked: runner.Asked) -> None:
    design = {"batch_size": digits.BATCH_SIZE, "settings": RUNS}
    wanted = [(name, seed) for name in RUNS for seed in SEEDS[: 1 if asked.quick else None]]
    once = functools.partial(train, data=asked.data, **digits.quick(asked))
    found = runner.runs(asked, design, ("name", "seed"), wanted, once)
    runner.publish(asked, runner.ROOT / "docs" / "learning.md", table(found))


def train(name: str, seed: int, data: Path, **more: Any) -> dict[str, Any]:
    """Train once; return the three accuracies, the seconds it took and any warning.

    Args:
        name: of RUNS.
        seed: of the run.
        data: Fashion-MNIST's four files, where that is trained on.
        **more: of ``coview.train``.
    """
    given = {**RUNS[name], **more}
    with tempfile.TemporaryDirectory() as folder:
        if given.get("data") == FASHION:
            accuracy.first_images(data, Path(folder))
            given["data"] = f"idx:{folder}"
        run, seconds = digits.train(given, seed)
    return {"seconds": seconds, **digits.accuracies(run), "warned": digits.warned(run)}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the means over seeds, and the lowest trained one, in Markdown."""
    by_name = {name: [run for run in found if run["name"] == name] for name in RUNS}
    return digits.means("run", {name: mine for name, mine in by_name.items() if mine})
