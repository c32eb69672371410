"""One trial: a process of ``coview train`` with a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

PATIENCE = 60.0
"""Seconds that an earlier process has to save its checkpoint and end."""


@attrs.define(eq=False)
class Process:
    """A trial's process.

    Attributes:
        folder: the run's directory.
        log: what it prints.
        running: the process; None: the run had ended already.
        seen: the last step whose metric was reported.
    """

    folder: Path
    log: Path
    running: subprocess.Popen[bytes] | None = None
    seen: int = 0

    @classmethod
    def begin(cls, folder: Path, words: Sequence[str], threads: int) -> Process:
        """Start a trial, or go on with what there is of it."""
        log = folder.with_suffix(".log")
        pid = folder.with_suffix(".pid")
        _end_earlier(pid, folder)
        made = cls(folder, log)
        if made.finished:
            return made
        saved = any(folder.glob("checkpoints/*.pt"))
        ask = ["--resume", str(folder)] if saved else [*words, "--out", str(folder)]
        if not saved and folder.exists():  # ended before its first checkpoint
            folder.rename(folder.with_name(f"{folder.name}-begun-{time.time_ns()}"))
        environment = {"OMP_NUM_THREADS": str(threads), "COVIEW_NO_REPORT": "1", **os.environ}
        with log.open("ab") as out:
            made.running = subprocess.Popen(
                [sys.executable, "-m", "coview", "train", *ask],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the sweep, which ends its trials
            )
        pid.write_text(str(made.running.pid))
        return made

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        try:
            facts = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(facts.get("finished"))

    @property
    def over(self) -> bool:
        """Whether no process is at work any more."""
        return self.running is None or self.running.poll() is not None

    def readings(self, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) of a metric, all that were logged so far."""
        found = []
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # the line that is being written
            value = entry.get(metric)
            if isinstance(value, (int, float)) and entry.get("step"):
                found.append((int(entry["step"]), float(value)))
        return found

    def why(self) -> str:
        """Return the last line that the process printed."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        errors = [line for line in lines if line.startswith("Error: ")]
        return (errors or lines or ["its process ended without a word"])[-1]

    def end(self) -> None:
        """Ask the process to save a checkpoint and to end, and wait for it."""
        if self.running is None:
            return
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
        try:
            self.running.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()


def _end_earlier(file: Path, folder: Path) -> None:
    """End what a sweep that was killed left at work on a trial: it saves a checkpoint."""
    try:
        pid = int(file.read_text())
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + PATIENCE
    asked = False
    while _is_ours(pid, folder) and time.monotonic() < deadline:
        if not asked:
            os.kill(pid, signal.SIGTERM)
            asked = True
        time.sleep(0.1)
    if _is_ours(pid, folder):
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
    file.unlink(missing_ok=True)


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether a process is at work on this trial: its number may be another's by now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return os.fsencode(str(folder)) in words and state != "Z"
