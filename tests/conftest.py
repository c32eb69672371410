"""What the cross-package tests share: a small set of images in two formats, and the CLI."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from coview.cli import main

# A report of each run that tests train would take longer than all of the training.
os.environ["COVIEW_NO_REPORT"] = "1"
# Nor do a developer's own defaults belong into tests.
os.environ["COVIEW_NO_DEFAULTS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
CLASSES = 3


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Import a file of benchmarks/, as `python -m benchmarks` does."""

    def load(name: str) -> ModuleType:
        sys.path.insert(0, str(ROOT))
        try:
            return importlib.import_module(f"benchmarks.{name}")
        finally:
            sys.path.remove(str(ROOT))

    return load


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of one's own, and no setting of the developer's."""
    for name in ("COVIEW_DATA", "COVIEW_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@attrs.frozen
class Answer:
    """What a command said."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.stdout)

    @property
    def errors(self) -> list[str]:
        """The problems that were named."""
        prefix = "Error: "
        return [line[len(prefix) :] for line in self.stderr.splitlines() if line.startswith(prefix)]


Run = Callable[..., Answer]


@pytest.fixture
def run() -> Run:
    """Run `coview ARGUMENTS` in this process; the exit status is checked."""

    def invoke(*arguments: object, status: int = 0) -> Answer:
        result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="coview")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, f"{result.exit_code}: {result.stdout}{result.stderr}"
        return Answer(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def refused(run: Run) -> Callable[..., list[str]]:
    """Run a wrong request; return the problems: no traceback, nothing on stdout, status 2."""

    def invoke(*arguments: object) -> list[str]:
        answer = run(*arguments, status=2)
        assert answer.stdout == ""
        assert "Traceback" not in answer.stderr
        lines = answer.stderr.splitlines()
        assert answer.errors, lines
        # An indented line says what would be right.
        known = ("Error: ", "Usage: ", "Try ", "checking, then reading ", "reading ", "  ")
        known += ("loading torch: ", "preparing: ")  # signs of life on a busy machine
        others = [line for line in lines if not line.startswith(known)]
        assert not [line for line in others if line], lines
        return answer.errors

    return invoke


@pytest.fixture
def terminal() -> Callable[..., str]:
    """Type a command on a terminal of 80 columns; return all that it shows."""

    def typed(*arguments: object) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        variables.pop("COLUMNS", None)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "coview", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=variables,
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a pseudo-terminal is an error
            while chunk := os.read(ours, 4096):
                shown += chunk
        os.close(ours)
        assert process.wait(60) == 0, shown.decode()
        return shown.decode().replace("\r\n", "\n")

    return typed


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a fresh interpreter with warnings as errors; its exit status is checked."""

    def invoke(
        *arguments: object, path: Sequence[Path] = (), status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        if path:
            variables["PYTHONPATH"] = os.pathsep.join(map(str, path))
        done = subprocess.run(
            [sys.executable, "-W", "error", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=variables,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done

    return invoke


def pictures(count: int, size: int, channels: int) -> np.ndarray:
    """Stripes: (count, size, size, channels) uint8; direction and width tell the class."""
    random = np.random.RandomState(count)
    rows, columns = np.mgrid[:size, :size]
    ways = (rows, columns, rows + columns)
    made = np.empty((count, size, size, channels), np.uint8)
    for number in range(count):
        kind = number % CLASSES
        wave = np.sin(ways[kind] * (0.5 + 0.3 * kind) + random.rand() * 6)
        noisy = 128 + 90 * wave[..., None] + random.randn(size, size, channels) * 10
        made[number] = noisy.clip(0, 255)
    return made


@pytest.fixture(scope="session")
def idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 24 test images of 16 pixels in MNIST's format, with labels."""
    folder = tmp_path_factory.mktemp("idx")
    for stem, count in (("train", 48), ("t10k", 24)):
        images = pictures(count, 16, 1)[..., 0]
        labels = np.arange(count, dtype=np.uint8) % CLASSES
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (folder / f"{stem}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 colour images of 24 pixels, PNG and JPEG, in a folder for each of three classes."""
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(pictures(60, 24, 3)):
        place = folder / f"class{number % CLASSES}"
        place.mkdir(exist_ok=True)
        ending = "png" if number % 2 else "jpg"
        Image.fromarray(pixels).save(place / f"{number:03}.{ending}")
    return folder


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Options of a run that takes a fraction of a second."""
    return ("--backbone", "resnet10-quarter", "--batch-size", "16", "--device", "cpu")
