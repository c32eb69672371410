"""Errors for a promise that is not kept, or that does not apply."""

from __future__ import annotations

import unittest


class ConformanceError(AssertionError):
    """A promise is broken; the message says what was seen."""


class NotTried(unittest.SkipTest):
    """A promise does not apply here; the message says why. pytest counts it as skipped."""


def demand(kept: bool, sentence: str) -> None:
    """Raise an error with this sentence unless the promise is kept.

    Raises:
        ConformanceError: the promise is not kept.
    """
    if not kept:
        raise ConformanceError(sentence)
