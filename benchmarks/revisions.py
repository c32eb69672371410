"""Entrants that are processes: each by the sources of one revision, working when it is asked to."""

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks import runner

# What an entrant's own code ends with, after it has made ``once``: so many calls for every line.
ANSWERS = """
for times in sys.stdin:
    for _ in range(int(times)):
        once()
    print("done", flush=True)
"""


class Entrant:
    """A process that calls what its code names ``once`` when asked to, and waits in between."""

    def __init__(self, root: Path, code: str, given: Sequence[object], times: int = 1) -> None:
        self._times = f"{times}\n"
        sources = [root / "core/src", *sorted(root.glob("plugins/*/src"))]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code + ANSWERS, *map(str, given)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(self._times)
        self._process.stdin.flush()
        while (line := self._process.stdout.readline()) != "done\n":
            if not line:
                raise SystemExit("An entrant ended; what it said is above.")

    def __enter__(self) -> "Entrant":
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def sources(revision: str) -> Iterator[Path]:
    """Give a folder with the packages and benchmarks of a revision, taken from git."""
    archive = git("archive", revision, "core", "plugins", "benchmarks")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as packed:
            packed.extractall(folder, filter="data")
        yield Path(folder)


def commit(revision: str) -> str:
    return git("rev-parse", "--short", f"{revision}^{{commit}}").decode().strip()


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=runner.ROOT, check=True, capture_output=True).stdout
