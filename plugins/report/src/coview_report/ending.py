"""The page that a run gets at its end, and after each evaluation before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def page_of(run: Any) -> Path:
    """Write ``report.html`` into a run's directory.

    Args:
        run: a :class:`coview.training.run.Run`, whose network and data are in memory.

    Returns:
        The file.
    """
    from coview_report.looking import look
    from coview_report.making import FILE
    from coview_report.page import page, write
    from coview_report.reading import read

    path: Path = run.path / FILE
    looked = look(run, device=str(run.device), workers=run.settings.workers)
    write(path, page([read(run.path)], looked))
    return path
