"""Reports that installed packages write about a run.

An entry point in the group ``coview.reports`` is a function that is called with the run, in its
first process, at the end and after each evaluation in between. It writes what it likes into the
run's directory and returns the file for people to open, or None.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from coview.registry import entries
from coview.training.measure import by_first
from coview.training.observers.base import OF_THE_TERMINAL

if TYPE_CHECKING:
    from coview.training.run import Run

VARIABLE = "COVIEW_NO_REPORT"
"""An environment variable that leaves out all reports, whatever a run asks for."""


@by_first
def report_so_far(run: Run) -> None:
    """Let packages report on a run that goes on."""
    _report(run)


def report_at_end(run: Run) -> None:
    """Let packages report on a finished run; Ctrl-C leaves the report out, and nothing else."""
    if _wanted(run) and OF_THE_TERMINAL in run.observers:
        sys.stderr.write("writing the report\n")
    try:
        _report(run)
    except KeyboardInterrupt:
        sys.stderr.write("note: The report was left out. The run is finished.\n")


def _wanted(run: Run) -> bool:
    return run.settings.report and not os.environ.get(VARIABLE) and bool(entries("reports"))


def _report(run: Run) -> None:
    if not _wanted(run):
        return
    run.reports.clear()
    for entry in entries("reports"):
        try:
            # Training goes on with the random numbers that it would have had.
            with torch.random.fork_rng():
                path = entry.load()(run)
        except Exception as error:  # whatever fails there, the run has not
            sys.stderr.write(f"note: {entry.package} could not report on this run: {error}\n")
            continue
        if path is not None:
            run.reports.append(Path(path))
