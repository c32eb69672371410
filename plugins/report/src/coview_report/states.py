"""What has become of a run, true also after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coview.locks import is_held

STATES = ("running", "finished", "interrupted", "failed")


def state(path: Path, facts: Mapping[str, Any]) -> str:
    """Return one of :data:`STATES`.

    A run is running as long as a process holds its lock, which the operating system takes
    away from one that ends, however it ends.

    Args:
        path: the run's directory.
        facts: its ``run.json``.
    """
    if facts.get("finished"):
        return "finished"
    if is_held(path / ".lock"):
        return "running"
    return "failed" if facts.get("failed") else "interrupted"
