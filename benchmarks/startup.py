"""What `coview --help` and other commands cost over an interpreter that does nothing."""

import subprocess
import sys
from functools import partial
from importlib import metadata

from benchmarks import runner

NOTHING = "python -c pass"
COMMANDS = ("coview --help", "coview list", "coview lineage", "coview train --help")
OPTIONS = {"rounds": 15}


def main(asked: runner.Asked) -> None:
    words = {NOTHING: ["-c", "pass"]} | {c: ["-m", *c.split()] for c in COMMANDS}
    process = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    entrants = {name: partial(process, [sys.executable, *more]) for name, more in words.items()}
    found = runner.turns(entrants, asked.rounds, warm_up=1)
    seconds = found["raw_seconds"]
    found["ratios"] = [runner.compared(seconds, name, NOTHING)[0] for name in COMMANDS]
    found["packages"] = len([d for d in metadata.distributions() if d.name.startswith("coview")])
    runner.show(found)
    runner.write("startup", {**runner.facts(asked.rounds), **found}, asked.out)
