"""A step of the twelve beside one with all records checked, and beside another revision's."""

import os
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks import runner

TWELVE = (
    *("instdisc", "cpc", "cmc", "moco", "simclr", "moco-v2"),
    *("simclr-v2", "swav", "byol", "simsiam", "moco-v3", "dino"),
)
SIZES = {"batch_size": 16, "steps": 8, "rounds": 15, "threads": 1}
OPTIONS = {"rows": TWELVE, **SIZES, "other": "", "steady": True}
STEP, CHECKED = "step", "records checked in every step"
# In a process of its own, by the benchmarks and the sources of its own revision.
ENTRANT = """
import sys, torch
from benchmarks import engine
method, batch_size, threads, checked = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
given = {"preset": "tiny", "compile": False, "set": {}, "device": "cpu"}
run = engine.started(method, batch_size, None, **given)
run.method.always_checked = bool(checked)
step = engine.whole(run)
for steps in sys.stdin:
    for _ in range(int(steps)):
        step()
    print("done", flush=True)
"""


class Entrant:
    """A process that makes steps when it is asked to, and waits in between."""

    def __init__(self, root: Path, method: str, asked: runner.Asked, checked: bool) -> None:
        self._steps = f"{asked.steps}\n"
        sources = [root / "core/src", *sorted(root.glob("plugins/*/src"))]
        given = (asked.batch_size, asked.threads, int(checked))
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENTRANT, method, *map(str, given)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(self._steps)
        self._process.stdin.flush()
        while (line := self._process.stdout.readline()) != "done\n":
            if not line:
                raise SystemExit("An entrant ended; what it said is above.")

    def __enter__(self) -> "Entrant":
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()
        self._process.communicate()


def main(asked: runner.Asked) -> None:
    if asked.quick:
        asked.steps = 1
    with tempfile.TemporaryDirectory() as folder:
        roots = {STEP: runner.ROOT, CHECKED: runner.ROOT}
        revision = commit(asked.other) if asked.other else None
        if revision:
            archive = git("archive", revision, "core", "plugins", "benchmarks")
            with tarfile.open(fileobj=BytesIO(archive)) as packed:
                packed.extractall(folder, filter="data")
            roots[f"step of {revision}"] = Path(folder)
        design = f"presets tiny, batches of {asked.batch_size}; a round is {asked.steps} steps"
        about = {"design": design, "revisions": [commit("HEAD"), revision]}
        runner.rows(asked, about, lambda method: {"rows": {method: timed(method, asked, roots)}})


def timed(method: str, asked: runner.Asked, roots: dict[str, Path]) -> dict[str, Any]:
    with ExitStack() as stack:
        entrants = {
            name: stack.enter_context(Entrant(root, method, asked, name == CHECKED))
            for name, root in roots.items()
        }
        seconds = runner.alternate(entrants, asked.rounds)
    others = [name for name in entrants if name not in (STEP, CHECKED)]
    ratios = [*runner.compared(seconds, STEP, *others), *runner.compared(seconds, CHECKED, STEP)]
    return {"ratios": ratios, "seconds": seconds}


def commit(revision: str) -> str:
    return git("rev-parse", "--short", f"{revision}^{{commit}}").decode().strip()


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=runner.ROOT, check=True, capture_output=True).stdout
