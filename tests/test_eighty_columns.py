"""What a pseudo-terminal of 80 columns shows: bars, tables and help fit it; sentences are one line.

Sentences are left to the terminal to wrap, since a command inside one is copied.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

COLUMNS = 80
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(program: str, *, columns: int = COLUMNS) -> str:
    """Run a Python program in a terminal; return all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
    )
    os.close(theirs)
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            written += part
    assert process.wait(60) == 0, written.decode()
    return written.decode()


def commands(*lines: str) -> str:
    """Return a program that runs commands one after the other, each under a heading."""
    calls = [
        f"print('== {line}', flush=True); main({line.split()!r}, standalone_mode=False)"
        for line in lines
    ]
    return "\n".join(["from coview.cli import main", *calls])


def drawn(text: str) -> list[str]:
    """Return every line as it was ever drawn, those that were overwritten too."""
    return [CODES.sub("", line) for line in re.split(r"[\r\n]+", text)]


def parts(text: str) -> dict[str, list[str]]:
    """Return what each command showed."""
    shown: dict[str, list[str]] = {}
    for line in drawn(text):
        if line.startswith("== "):
            now = shown.setdefault(line[3:], [])
        elif shown:
            now.append(line)
    return shown


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """A first hour, in one terminal."""
    folder = tmp_path_factory.mktemp("hour")
    small = "--preset tiny --data digits --max-steps 12 --device cpu"
    lines = (
        f"train simclr {small} --out {folder}/a",
        f"train simclr {small} --temperature 0.1 --lr 0.02 --out {folder}/b",
        f"evaluate knn {folder}/a -k 20",
        f"evaluate table {folder}/a {folder}/b",
        f"embed {folder}/a --out {folder}/e.npz",
        "list",
        "list methods",
        f"train simclr {small} --dry-run --fits 24GB",
        f"export {folder}/a --out {folder}/w.safetensors",
        f"neighbours {folder}/a --out {folder}/n.png",
        f"views {folder}/a --out {folder}/v.png",
        f"train --resume {folder}/a",
    )
    found = parts(in_a_terminal(commands(*lines)))
    assert list(found) == list(lines)
    return {line.split("/")[0] if "evaluate" in line else line: found[line] for line in lines}


def of(session: dict[str, list[str]], start: str) -> list[str]:
    return next(lines for command, lines in session.items() if command.startswith(start))


def test_the_bar_fits(session: dict[str, list[str]]) -> None:
    bars = [line for line in of(session, "train simclr") if "━" in line]
    assert len(bars) >= 2 and max(map(len, bars)) <= COLUMNS
    last = bars[-1]
    assert re.match(r"epoch \d+/\d+  loss \d+\.\d{4}  .*━{10,} 12/12 \d:\d\d:\d\d", last)


def test_what_is_run_is_said_before_it_runs(session: dict[str, list[str]]) -> None:
    lines = of(session, "train simclr")
    bar = next(number for number, line in enumerate(lines) if "━" in line)
    before = "\n".join(lines[:bar])
    for said in ("preset: tiny", "network: resnet10-quarter, 3", "batch 128: ", "measuring kNN"):
        assert said in before
    after = "\n".join(lines[bar:])
    for said in ("untrained network", "trained network", "weights: ", "next: coview "):
        assert said in after


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (
            "train simclr --preset tiny --data digits --max-steps 12 --device cpu --dry",
            "fits 24 GB: yes",
        ),
        ("export", "coview.load_backbone("),
        ("neighbours", "n.png"),
        ("views", "v.png"),
        ("train --resume", "This run is finished: it was to end after step 12 of "),
    ],
)
def test_every_ending_says_what_happened(
    session: dict[str, list[str]], start: str, said: str
) -> None:
    lines = of(session, start)
    assert any(said in line for line in lines), lines
    assert not any("Error" in line or "Traceback" in line for line in lines)


@pytest.mark.parametrize("start", ["evaluate table", "list", "list methods"])
def test_tables_fit(session: dict[str, list[str]], start: str) -> None:
    lines = of(session, start)
    assert len(lines) > 3
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_the_table_names_what_differs(session: dict[str, list[str]]) -> None:
    lines = of(session, "evaluate table")
    assert any("temperature" in line for line in lines)


def test_help_fits() -> None:
    names = ("train", "evaluate", "evaluate knn", "embed", "export", "views", "neighbours", "show")
    helps = [f"print('== {n}'); show({n.split()!r})" for n in names]
    program = (
        "from coview.cli import main\n"
        "def show(words):\n"
        "    try: main([*words, '--help'], standalone_mode=False)\n"
        "    except SystemExit: pass\n"
    )
    found = parts(in_a_terminal(program + "\n".join(helps)))
    assert list(found) == list(names)
    for name, lines in found.items():
        assert any(line.startswith("Usage: ") for line in lines), name
        assert [line for line in lines if len(line) > COLUMNS] == [], name


def test_a_narrow_terminal_has_a_bar(tmp_path: Path) -> None:
    line = (
        f"train simclr --preset tiny --data digits --max-steps 3 --no-evaluate --out {tmp_path}/r"
    )
    (lines,) = parts(in_a_terminal(commands(line), columns=50)).values()
    bars = [line for line in lines if "━" in line]
    assert max(map(len, bars)) <= 50 and re.match(r"epoch 1/\d+ .*━+ 3/3 \d:\d\d:\d\d", bars[-1])
