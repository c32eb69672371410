"""What torchrun tells the processes that it starts anew after one of them ended."""

from __future__ import annotations

import os


def most_restarts() -> int:
    """Return how often it may start them anew (``--max-restarts``)."""
    return _number("TORCHELASTIC_MAX_RESTARTS")


def restarts() -> int:
    """Return how often it has done so; 0 also without torchrun."""
    return _number("TORCHELASTIC_RESTART_COUNT")


def _number(variable: str) -> int:
    text = os.environ.get(variable, "0")
    return int(text) if text.isdecimal() else 0
