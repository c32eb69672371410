"""Names cannot command a terminal; a terminal that is closed ends no work."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import coview
from coview.cli import main
from coview.terminal import Output, controls, lasting, shown

Run = Callable[..., Any]

EVIL = "a\x1b[2J\u202egpj\x07\u2028b"
HIDDEN = ("\x1b", "\u202e", "\x07", "\u2028", "\r")


def test_what_a_terminal_would_obey_is_shown_as_escapes() -> None:
    assert shown("a\x1b[2J\u202eb\n\x9b") == r"a\x1b[2J\u202eb\n\x9b"
    assert shown(os.fsdecode(b"\xff")) == r"\udcff"
    for harmless in ("naïve 漢字 🜁 \u0627\u200c\u0628", "tab"):
        assert shown(harmless) == harmless
    assert shown("a\tb\n", keep="\n\t") == "a\tb\n"


def test_a_stream_escapes_but_bars_are_drawn() -> None:
    text = io.StringIO()
    output = Output(text, escapes=True)
    print("\rbar", "a\rb\x1b[1m", file=output)
    controls(output).write("\x1b[1m")
    assert text.getvalue() == "\rbar a\\rb\\x1b[1m\n\x1b[1m"
    assert controls(text) is text


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder of images whose names command a terminal; one of them is damaged."""
    for kind in (EVIL, "class\nError: all is lost"):
        folder = tmp_path / "images" / kind
        folder.mkdir(parents=True)
        for number in range(30):
            Image.new("RGB", (16, 16), (8 * number, 0, 0)).save(folder / f"{number}.png")
    (tmp_path / "images" / EVIL / f"bad\n{EVIL}.png").write_bytes(b"no image")
    return tmp_path / "images"


def spoken(answer: Any) -> str:
    said = str(answer.stdout + answer.stderr)
    assert not [mark for mark in HIDDEN if mark in said], said
    assert not [line for line in said.splitlines() if line.startswith("Error")], said
    return said


def test_no_command_passes_such_names_on(run: Run, evil: Path, tiny: tuple[str, ...]) -> None:
    size = ("--image-size", 16)
    said = spoken(run("train", "simclr", "--data", evil, *tiny, *size, "--epochs", 1, "--out", "r"))
    assert r"a\x1b[2J\u202egpj\x07\u2028b/bad\na\x1b" in said
    spoken(run("evaluate", "knn", "r", "--json"))
    spoken(run("evaluate", "retrieval", "r"))
    spoken(run("embed", "r", "--out", "e.npz"))
    spoken(run("pack", evil, "--out", "p", "--workers", 0))
    odd = evil.with_name(f"odd{EVIL}")
    shutil.copytree(evil, odd)
    spoken(run("train", "simclr", "--data", odd, *tiny, *size, "--epochs", 1))
    (made,) = Path("runs").iterdir()
    assert made.name == shown(made.name)
    assert "odd" in spoken(run("evaluate", "table", made))
    refused = run("train", "simclr", "--data", f"nowhere{EVIL}", status=2)
    assert r"nowherea\x1b[2J\u202e" in refused.stderr and "\x1b" not in refused.stderr


@contextmanager
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let standard output and error be pipes that nobody reads."""
    writers = []
    for _ in range(2):
        reader, number = os.pipe()
        os.close(reader)
        writers.append(os.fdopen(number, "w", encoding="utf-8"))
    with monkeypatch.context() as patch:
        for name, writer in zip(("stdout", "stderr"), writers, strict=True):
            patch.setattr(sys, name, writer)
        yield
    for file in writers:
        with suppress(OSError):
            file.close()


def call(*arguments: object) -> int:
    """Run a command without a test runner's streams; return its status."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments], prog_name="coview")
    return int(ended.value.code or 0)


def test_training_outlives_its_terminal(
    idx: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--data", f"idx:{idx}", *tiny, "--epochs", 1)
    with closed(monkeypatch):
        assert call("train", "simclr", *common, "--out", "r") == 0
        assert call("evaluate", "knn", "r") == 0
        # The pipe that nobody reads is the null device by now.
        print("nowhere", file=sys.stderr, flush=True)
    assert json.loads(Path("r/run.json").read_text())["finished"] is not None
    assert len(Path("r/evaluations.jsonl").read_text().splitlines()) == 1


def test_training_in_python_does_too(idx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"backbone": "resnet10-quarter", "batch_size": 16, "device": "cpu"}
    with closed(monkeypatch):
        run = coview.train("simclr", f"idx:{idx}", out="s", epochs=1, **given)
    assert json.loads((run.path / "run.json").read_text())["finished"] is not None


def test_a_program_without_output_writes_into_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting():
        print("nowhere")
        print("nowhere", file=sys.stderr)
        assert sys.stdout.fileno() > 2  # 1 and 2 are taken here
    assert sys.stdout is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_output_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.StringIO()
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", errors)
        assert call("list", "methods") == 1
    assert errors.getvalue() == (
        f"Error: The output could not be written: {os.strerror(errno.ENOSPC)}.\n"
    )


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals are POSIX's")
def test_a_closed_terminal_s_signal_ends_no_training(tmp_path: Path, idx: Path) -> None:
    class Watch:
        @coview.hookimpl
        def run_started(self) -> None:
            seen.append(signal.getsignal(signal.SIGHUP))

    seen: list[Any] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        given: dict[str, Any] = {"max_steps": 1, "evaluate": False, "progress": False}
        given |= {"backbone": "resnet10-quarter", "batch_size": 16, "device": "cpu"}
        coview.train("simclr", f"idx:{idx}", out=tmp_path / "r", observe=[Watch()], **given)
        assert seen == [signal.SIG_IGN]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
