"""From runs to the file of their page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from coview_report.page import page, write
from coview_report.reading import read_all

FILE = "report.html"


@attrs.frozen
class Made:
    """A page that was written, and what to know of it."""

    path: Path
    bytes: int
    notes: tuple[str, ...]


def make(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    pictures: bool = True,
    device: str = "auto",
    workers: int = 0,
) -> Made:
    """Write the page about runs.

    Args:
        runs: their directories; of one run, also its weights are looked at.
        out: file to write; None: ``report.html`` in the run, or here for several.
        pictures: compute what needs weights and data.
        device, workers: for computing features.

    Raises:
        RequestError: there is no such run.
        CoviewError: the file cannot be written.
    """
    from coview_report.looking import look

    found = read_all(runs)
    one = len(found) == 1
    looked = look(runs[0], device=device, workers=workers) if one and pictures else None
    text = page(found, looked)
    path = out or (runs[0] / FILE if one else Path(FILE))
    write(path, text)
    notes = tuple(note for run in found for note in run.notes)
    return Made(path, len(text.encode()), (*notes, *(looked.notes if looked else ())))
