"""What `coview --help` costs over an interpreter that does nothing: alternated, medians.

python benchmarks/startup.py [--rounds 15]      writes results/startup.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "startup.json"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "coview --help": ["-m", "coview", "--help"],
    "coview list": ["-m", "coview", "list"],
    "coview lineage": ["-m", "coview", "lineage"],
    "coview train --help": ["-m", "coview", "train", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """Return the wall time of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for arguments in COMMANDS.values():
        seconds(arguments)  # bytecode and caches
    raw: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            raw[name].append(round(seconds(arguments), 4))
    document = {
        "command": f"python benchmarks/startup.py --rounds {rounds}",
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "packages": len([d for d in metadata.distributions() if d.name.startswith("coview")]),
        "median_seconds": {name: statistics.median(values) for name, values in raw.items()},
        "raw_seconds": raw,
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document["median_seconds"], indent=2))


if __name__ == "__main__":
    main()
