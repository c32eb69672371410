"""What has become of a run, true also after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coview.locks import is_held

LOCK = ".lock"
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
    if is_held(path / LOCK):
        return "running"
    return without_lock(facts.get("failed"))


def without_lock(failed: str | None) -> str:
    """Return the state of a run that has no end and is not being trained."""
    return "failed" if failed else "interrupted"
