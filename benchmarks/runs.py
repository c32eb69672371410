"""How long `coview runs list` takes over ten thousand runs: index made, and up to date."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import runner

RUNS, EPOCHS = 10_000, 20
OPTIONS = {"rounds": 7}
RECIPE = """name = "simclr"
epochs = 20
batch_size = 256
[loss]
use = "info-nce"
temperature = 0.1
[backbone]
use = "resnet18"
"""


def main(asked: runner.Asked) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            write(Path(folder) / f"run-{number:05}", number)
        words = [sys.executable, "-m", "coview", "runs", "list", folder]
        nothing = [sys.executable, "-m", "coview", "--help"]
        found = {"runs": RUNS, "index_seconds": seconds(words)}
        for name, command in {"list": words, "help": nothing}.items():
            taken = sorted(seconds(command) for _ in range(asked.rounds))
            found[f"{name}_seconds"] = taken[len(taken) // 2]
    runner.show(found)
    runner.write("runs", {**runner.facts(asked.rounds), **found}, asked.out)


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return round(time.perf_counter() - began, 3)


def write(path: Path, number: int) -> None:
    path.mkdir()
    facts = {"method": "simclr", "seed": number, "data": {"name": "digits"}, "device": "cpu"}
    facts |= {
        "started": f"2026-01-01T10:00:{number % 60:02}+00:00",
        "finished": "2026-01-01T11:00:00+00:00",
    }
    (path / "run.json").write_text(json.dumps(facts))
    (path / "recipe.toml").write_text(RECIPE)
    lines = [{"step": e, "epoch": e, "loss": 5 / (e + 1), "lr": 0.1} for e in range(EPOCHS)]
    lines.append({"step": EPOCHS, "epoch": EPOCHS, "knn_top1": number / RUNS})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
