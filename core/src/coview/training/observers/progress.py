"""Progress on stderr: a bar on a terminal, otherwise one line per epoch."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coview.hookspecs import hookimpl

MOST_LINES = 40


class ProgressObserver:
    """Shows a run's progress, its loss and images per second."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bar: Progress | None = None
        self.task: Any = None
        self.last_line = 0.0

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Print what is trained, on which data, and start the bar."""
        device = run.device
        self._say(
            f"training {run.resolved.recipe.name or 'a recipe'} on {run.data.name}: "
            f"{len(run.data.train)} images, {run.last_step - run.step} steps on {device} "
            f"({run.settings.precision}), into {run.path}"
        )
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.task = self.bar.add_task("training", total=run.last_step, completed=run.step)
            self.bar.start()

    @hookimpl
    def step_finished(self, run: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=run.step)

    @hookimpl
    def epoch_finished(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        """Print the epoch's means; runs of many short epochs print only some."""
        line = (
            f"epoch {epoch + 1}/{run.resolved.training.epochs}  step {run.step}/{run.last_step}  "
            f"loss {metrics.get('loss', float('nan')):.4f}  lr {metrics.get('lr', 0.0):.3g}  "
            f"{metrics.get('images_per_second', 0.0):.0f} images/s"
        )
        if self.bar is not None:
            self.bar.update(self.task, description=line)
        elif self._worth_a_line(run):
            self._say(line)

    def close(self) -> None:
        """Remove the bar and restore the terminal's cursor."""
        if self.bar is not None:
            self.bar.stop()

    def _worth_a_line(self, run: Any) -> bool:
        every = max(1, run.last_step // run.plan.steps_per_epoch // MOST_LINES)
        epoch = run.step // run.plan.steps_per_epoch
        now = time.monotonic()
        if epoch % every and run.step != run.last_step and now - self.last_line < 30:
            return False
        self.last_line = now
        return True

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
