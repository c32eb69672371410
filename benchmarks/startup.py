"""What `coview --help` and other commands cost over an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from benchmarks import runner

NOTHING = "python -c pass"
COMMANDS = ("coview --help", "coview list", "coview lineage", "coview train --help")
OPTIONS = {"rounds": 15}


def main(asked: runner.Asked) -> None:
    def process(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    entrants = {NOTHING: lambda: process("-c", "pass")}
    entrants |= {c: lambda c=c: process("-m", *c.split()) for c in COMMANDS}
    seconds = runner.alternate(entrants, asked.rounds, warm_up=1)
    packages = [d for d in metadata.distributions() if d.name.startswith("coview")]
    document = {
        "packages": len(packages),
        "median_seconds": runner.medians(seconds),
        "ratios": [runner.compared(seconds, command, NOTHING) for command in COMMANDS],
        "raw_seconds": seconds,
    }
    runner.show(document)
    runner.write("startup", {**runner.facts(asked.rounds), **document}, asked.out)
