"""How a promise ends that is not kept, or that cannot be tried."""

from __future__ import annotations

import unittest


class ConformanceError(AssertionError):
    """A promise is broken; the sentence says what was seen."""


class NotTried(unittest.SkipTest):
    """A promise does not apply here; the sentence says why. pytest counts it as skipped."""


def demand(kept: bool, sentence: str) -> None:
    """Raise the sentence unless what it denies is so.

    Raises:
        ConformanceError: it is not kept.
    """
    if not kept:
        raise ConformanceError(sentence)
