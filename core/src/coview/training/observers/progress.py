"""Progress on stderr: a bar on a terminal, otherwise one line per epoch, and none for long.

What is run is said before anything that takes time; how long it will take, once some steps
have shown it.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coview.hookspecs import hookimpl
from coview.telling import spoken
from coview.terminal import controls, shown
from coview.training import threads
from coview.training.estimate import duration
from coview.training.introduction import chosen, introduction
from coview.training.outcome import figures

MOST_LINES = 40
FIRST_ESTIMATE, QUIET = 3.0, 30.0
"""Seconds of training before it is said how long the rest takes; seconds between lines."""

COMPILED = {"on": "networks, views and losses", "views": "the views"}
"""What a run compiles, by its setting; else nothing."""

BAR = 20
"""Columns that are left to the bar, where a terminal is narrow."""


class ProgressObserver:
    """Shows a run's progress, its loss and images per second."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task: Any = None
        self.last_line = 0.0
        self.introduced = self.estimated = False
        self.began, self.compiled = 0.0, ""
        self.first_step = 0
        self.due = float("inf")
        self.used: threads.Use | None = None

    @hookimpl
    def evaluation_started(self, run: Any, what: str) -> None:
        """Print what is measured, which may take a while."""
        self._introduce(run)
        self.say(f"measuring {what}")

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Print what is trained, and what was measured before; start the bar."""
        self._introduce(run)
        if run.step == 0 and (measured := figures(run)):
            self.say(f"kNN top-1 before training: {measured}")
        self.began, self.first_step = time.monotonic(), run.step
        self.last_line, self.due = self.began, self.began + FIRST_ESTIMATE
        self.used = threads.use()
        self.compiled = COMPILED.get(run.settings.compile, "")
        if self.compiled:
            self.say(f"compiling {self.compiled} in the first step: it may take a minute or two")
        console = Console(file=controls(sys.stderr), highlight=False)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console)
            self.task = self.bar.add_task("training", total=run.last_step, completed=run.step)
            self.bar.start()

    @hookimpl
    def step_finished(self, run: Any) -> None:
        """Move the bar, or print a line if none was printed for long."""
        if time.monotonic() >= self.due:
            self._look_at_threads(run)
        if self.compiled and run.step == self.first_step + 1:
            self.say(f"compiled: {duration(time.monotonic() - self.began)} with the first step")
            self.last_line = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, completed=run.step)
            return
        now = time.monotonic()
        if run.step == self.first_step + 1:
            self.began = now  # the first step also prepares, and takes longer
        quiet = FIRST_ESTIMATE if not self.estimated else QUIET
        if now - self.last_line >= quiet and run.step < run.last_step:
            self.say(f"step {run.step}/{run.last_step}: {self._pace(run, now)}")
            self.last_line, self.estimated = now, True

    @hookimpl
    def epoch_finished(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        """Print the epoch's means; runs of many short epochs print only some."""
        passed = f"epoch {epoch + 1}/{run.resolved.training.epochs}"
        loss = f"loss {metrics.get('loss', float('nan')):.4f}"
        rate = f"lr {metrics.get('lr', 0.0):.3g}"
        speed = f"{metrics.get('images_per_second', 0.0):.0f} images/s"
        if self.bar is not None:
            room = self.bar.console.width - len(f"{run.last_step}/{run.last_step} 0:00:00") - BAR
            line = _fitting((passed, loss, speed, rate), room)
            self.bar.update(self.task, description=line)
        elif self._worth_a_line(run):
            step = f"step {run.step}/{run.last_step}"
            self.say("  ".join((passed, step, loss, rate, speed)))

    def close(self) -> None:
        """Remove the bar and restore the terminal's cursor."""
        if self.bar is not None:
            self.bar.stop()

    def _introduce(self, run: Any) -> None:
        if not self.introduced:
            self.introduced = True
            for line in (*chosen(run), *introduction(run)):
                self.say(line)

    def _look_at_threads(self, run: Any) -> None:
        """Say, once, if other programs keep this run's threads waiting."""
        self.due = float("inf")
        if said := threads.crowded(self.used, run.device):
            resume = f"coview train --resume {shlex.quote(str(run.path))}"
            self.say(
                f"{said}. One thread may be several times faster: press Ctrl-C, then "
                f"{resume} --threads 1 --allow-change threads"
            )

    def _pace(self, run: Any, now: float) -> str:
        """Return the time of a step, and to the end of training."""
        timed = run.step - self.first_step - 1
        if not timed:
            return "the first one takes longest"
        each = (now - self.began) / timed
        left = duration(each * (run.last_step - run.step))
        return f"{duration(each)} a step, about {left} to go"

    def _worth_a_line(self, run: Any) -> bool:
        every = max(1, run.last_step // run.plan.steps_per_epoch // MOST_LINES)
        epoch = run.step // run.plan.steps_per_epoch
        now = time.monotonic()
        known = epoch > 1 and run.step != run.last_step  # the first one shows that it runs
        if known and epoch % every and now - self.last_line < QUIET:
            return False
        self.last_line = now
        return True

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        spoken()
        if self.bar is not None:
            self.bar.console.print(shown(text), markup=False)
        else:
            print(shown(text), file=sys.stderr, flush=True)


def _fitting(parts: Sequence[str], room: int) -> str:
    """Return as many parts as there is room for, the first always."""
    line, *others = parts
    for part in others:
        if len(line) + len(part) + 2 > room:
            break
        line = f"{line}  {part}"
    return line
