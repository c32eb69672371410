"""Report, count and record training images that could not be read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from coview.data.bad_images import NAMED
from coview.distributed import everyones, is_first
from coview.hookspecs import hookimpl
from coview.training.directory import write_bad_images

if TYPE_CHECKING:
    from coview.training.run import Run

KEY = "bad_image"
"""Key of the sentence in ``metrics.jsonl``; ``row`` is the image's number."""


class BadImageWatch:
    """Logs each bad image once, at the step whose batch it should have been in.

    On resume, ``metrics.jsonl`` is cut back to the checkpoint, so it holds exactly
    what was known then, and nothing else needs to be saved.
    """

    def __init__(self, speak: bool) -> None:
        """Make a watch; it names the first bad images on stderr if ``speak``."""
        self.speak = speak
        self.told: set[int] = set()

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Restore what was known, and log what was found while loading the data."""
        bad, count = run.data.train.bad, len(run.data.train)
        known = everyones({m["row"]: m[KEY] for m in run.metrics if KEY in m})[0]
        self.told = set(known)
        self._log(run)  # named as a notice already
        bad.add(known.items(), count)

    @hookimpl
    def step_finished(self, run: Run) -> None:
        """Log the bad images of the step's batch."""
        if len(run.data.train.bad) > len(self.told):
            self._tell(run)

    @hookimpl
    def epoch_finished(self, run: Run) -> None:
        """Share with all processes what each has found."""
        bad = run.data.train.bad
        for faults in everyones(dict(bad.faults)):
            bad.add(faults.items(), len(run.data.train))
        self._tell(run)

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """Record the count, including images found during evaluation."""
        if is_first() and run.data.bad_images:
            write_bad_images(run)

    def _tell(self, run: Run) -> None:
        before = len(self.told)
        for sentence in self._log(run)[: max(0, NAMED - before)]:
            if self.speak and is_first():
                sys.stderr.write(f"{sentence} Another image takes its place.\n")

    def _log(self, run: Run) -> list[str]:
        """Log new bad images; return their sentences."""
        faults = run.data.train.bad.faults
        new = sorted(set(faults) - self.told)
        for row in new:
            run.log(**{KEY: faults[row], "row": row})
        self.told.update(new)
        if new and is_first() and len(self.told) - len(new) < NAMED:
            write_bad_images(run)
        return [faults[row] for row in new]
