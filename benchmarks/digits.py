"""Every method on scikit-learn's digits: raw pixels, the untrained network, the trained one.

    python benchmarks/digits.py demo              train one method and print the three
    python benchmarks/digits.py measure           five seeds of every method; writes
                                                  results/digits.json and the README's table
    python benchmarks/digits.py measure byol      ... of one method, beside what is there

Each method's `small` preset at 32 pixels, changed only as SETTINGS says, and said
there why. It is a check that methods learn, not a comparison of methods.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import side_by_side

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results" / "digits.json"
README = ROOT / "README.md"
SEEDS = (0, 1, 2, 3, 4)
DEMO = "moco-v2"

BACKBONE = "resnet10-quarter"
EPOCHS = 40
BATCH_SIZE = 64
# A digit mirrored is another digit or none, and a crop of 8 % of an 8-pixel
# image is five pixels. The stem with stride 2 is enough for digits drawn from
# 8 pixels, and ten times faster on a CPU.
COMMON: dict[str, Any] = {
    "backbone.stem": "7x7",
    "backbone.zero_init_last": False,
    "views.flip_p": 0.0,
    "views.crop_scale": [0.3, 1.0],
}
# Presets are tuned for hundreds of epochs and batches of 128 to 512, and their
# heads for large networks: learning rates, warm-ups and widths for forty epochs
# at 64.
WARM_UP: dict[str, Any] = {"schedule.warmup_epochs": 5}
NARROW: dict[str, Any] = {"encoder.hidden": 512, "encoder.predictor_hidden": 512}
OWN: dict[str, dict[str, Any]] = {
    "instdisc": {"optimizer.lr": 0.03},
    "simclr": {**WARM_UP, "optimizer.lr": 4.0},
    "moco": {"encoder.norm_groups": 4},
    "moco-v2": {**WARM_UP, "optimizer.lr": 0.1},
    # An inverted digit is no harder to tell than the digit, so it is left out.
    "byol": {
        **WARM_UP,
        **NARROW,
        "optimizer.lr": 0.1,
        "target.decay": "cosine(0.98, 1.0)",
        "views.second_solarize_p": 0.0,
    },
    "simclr-v2": {**WARM_UP, "encoder.hidden": 512, "optimizer.lr": 4.0},
    "simsiam": {
        **WARM_UP,
        "encoder.hidden": 512,
        "encoder.predictor_hidden": 128,
        "encoder.dim": 512,
        "encoder.layers": 2,
        "optimizer.lr": 1.0,
        "optimizer.weight_decay": 5e-4,
        "views.blur_p": 0.0,
    },
    "swav": {
        **WARM_UP,
        "encoder.hidden": 512,
        "encoder.prototypes": 64,
        "loss.epsilon": 0.03,
        "optimizer.lr": 2.0,
    },
    "moco-v3": {**WARM_UP, **NARROW, "optimizer.lr": 0.3},
    "dino": {
        **WARM_UP,
        "encoder.hidden": 512,
        "encoder.dim": 256,
        "encoder.norm": "batch",
        "encoder.layers": 2,
        "optimizer.lr": 2.0,
        "target.decay": 0.99,
        "loss.teacher_temperature": 0.04,
    },
}
# LARS moves a network this small by too little in 880 steps.
USE: dict[str, dict[str, str]] = {"byol": {"optimizer": "sgd"}}
NUMBERS = ("raw_pixels_knn_top1", "untrained_knn_top1", "knn_top1")


def settings(method: str) -> dict[str, Any]:
    """Return what is set for a method on digits."""
    return {**COMMON, **OWN[method]}


def run(method: str, seed: int, progress: bool = False) -> dict[str, Any]:
    """Train once; return the three accuracies and the seconds it took."""
    import coview

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trained = coview.train(
            method,
            data="digits",
            backbone=BACKBONE,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            set=settings(method),
            use=USE.get(method, {}),
            seed=seed,
            out=Path(folder) / "run",
            progress=progress,
        )
    seconds = round(time.perf_counter() - started, 1)
    return {"seed": seed, "seconds": seconds, **{n: round(trained.value(n), 4) for n in NUMBERS}}


def command_line(method: str) -> list[str]:
    """Return the same run as a command."""
    sets = [f"--set={key}={json.dumps(value)}" for key, value in settings(method).items()]
    sets += [f"--use={role}={name}" for role, name in USE.get(method, {}).items()]
    numbers = [f"--epochs={EPOCHS}", f"--batch-size={BATCH_SIZE}"]
    return ["train", method, "--data=digits", f"--backbone={BACKBONE}", *numbers, *sets]


def demo() -> None:
    """Train from the command line, as a user would, and show the command."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*command_line(DEMO), "--out", str(Path(folder) / "run")]
        print("coview", " ".join(arguments[:-2]), flush=True)
        # The network is too small for more threads to help, and with one the run
        # does not suffer from whatever else the machine is doing.
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "coview", *arguments], check=True, env=one_thread)


def measure(methods: list[str]) -> None:
    """Train every seed of the methods, one after the other; keep the raw figures."""
    for method in methods:
        runs = []
        for seed in SEEDS:
            runs.append(run(method, seed))
            print(method, runs[-1], flush=True)
        _keep(method, runs)


def _keep(method: str, runs: list[dict[str, Any]]) -> None:
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"methods": {}}
    document["methods"][method] = {
        "settings": settings(method),
        "use": USE.get(method, {}),
        "runs": runs,
    }
    document |= _facts()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    side_by_side.put(README, "digits", table(document))


def _facts() -> dict[str, Any]:
    from importlib import metadata

    import torch

    return {
        "command": "python benchmarks/digits.py measure",
        "date": date.today().isoformat(),
        "device": f"cpu, {torch.get_num_threads()} thread(s), {platform.machine()}",
        "versions": {n: metadata.version(n) for n in ("torch", "torchvision", "kornia", "timm")},
        "backbone": BACKBONE,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
    }


def table(document: dict[str, Any]) -> str:
    """Return the README's table in Markdown."""
    methods = sorted(document["methods"])
    return means("method", {name: document["methods"][name]["runs"] for name in methods})


def means(what: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the means over seeds, and the lowest trained one, in Markdown."""
    lines = [
        f"| {what} | raw pixels | untrained network | trained network | lowest seed |",
        "|---|---|---|---|---|",
    ]
    for name, seeds in runs.items():
        columns = [[100 * run[number] for run in seeds] for number in NUMBERS]
        row = " | ".join(f"{statistics.mean(column):.1f}" for column in columns)
        lines.append(f"| {name} | {row} | {min(columns[-1]):.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("demo", "measure"))
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    arguments = parser.parse_args()
    if arguments.what == "demo":
        demo()
    else:
        measure(arguments.methods or list(OWN))


if __name__ == "__main__":
    main()
