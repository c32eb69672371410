"""A step of the twelve beside one with all records checked, and beside another revision's."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import runner
from benchmarks.revisions import Entrant, commit, sources

TWELVE = (
    *("instdisc", "cpc", "cmc", "moco", "simclr", "moco-v2"),
    *("simclr-v2", "swav", "byol", "simsiam", "moco-v3", "dino"),
)
SIZES = {"batch_size": 16, "steps": 8, "rounds": 15, "threads": 1}
OPTIONS = {"rows": TWELVE, **SIZES, "other": "", "steady": True}
STEP, CHECKED = "step", "records checked in every step"
# By the benchmarks of its own revision.
CODE = """
import sys, torch
from benchmarks import engine
method, batch_size, threads, checked = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
given = {"preset": "tiny", "compile": False, "set": {}, "device": "cpu"}
run = engine.started(method, batch_size, None, **given)
run.method.always_checked = bool(checked)
once = engine.whole(run)
"""


def main(asked: runner.Asked) -> None:
    if asked.quick:
        asked.steps = 1
    with ExitStack() as stack:
        roots = {STEP: runner.ROOT, CHECKED: runner.ROOT}
        revision = commit(asked.other) if asked.other else None
        if revision:
            roots[f"step of {revision}"] = stack.enter_context(sources(revision))
        design = f"presets tiny, batches of {asked.batch_size}; a round is {asked.steps} steps"
        about = {"design": design, "revisions": [commit("HEAD"), revision]}
        runner.rows(asked, about, lambda method: {"rows": {method: timed(method, asked, roots)}})


def timed(method: str, asked: runner.Asked, roots: dict[str, Path]) -> dict[str, Any]:
    with ExitStack() as stack:
        entrants = {}
        for name, root in roots.items():
            given = (method, asked.batch_size, asked.threads, int(name == CHECKED))
            entrants[name] = stack.enter_context(Entrant(root, CODE, given, asked.steps))
        seconds = runner.alternate(entrants, asked.rounds)
    others = [name for name in entrants if name not in (STEP, CHECKED)]
    ratios = [*runner.compared(seconds, STEP, *others), *runner.compared(seconds, CHECKED, STEP)]
    return {"ratios": ratios, "seconds": seconds}
