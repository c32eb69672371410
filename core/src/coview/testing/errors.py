"""Errors for a promise that is not kept, or that does not apply."""

from __future__ import annotations

import unittest
from collections.abc import Callable


class ConformanceError(AssertionError):
    """A promise is broken.

    Attributes:
        sentence: what was seen.
        evidence: the smallest numbers that show it; may be empty.
    """

    def __init__(self, sentence: str = "", evidence: str = "") -> None:
        super().__init__(f"{sentence}\n{evidence}" if evidence else sentence)
        self.sentence, self.evidence = sentence, evidence


class NotFiniteError(ConformanceError):
    """A step's values are not finite; other promises would fail of it, so it is told once.

    Attributes:
        whose: what they are of: a component with its package, or a gradient.
    """

    def __init__(self, whose: str, sentence: str, evidence: str = "") -> None:
        super().__init__(sentence, evidence)
        self.whose = whose


class NotTried(unittest.SkipTest):
    """A promise does not apply here; the message says why. pytest counts it as skipped."""


def demand(kept: bool, sentence: str, evidence: Callable[[], str] = str) -> None:
    """Raise an error with this sentence unless the promise is kept.

    Args:
        kept: whether it is kept.
        sentence: what was seen otherwise.
        evidence: called to get the smallest numbers that show it.

    Raises:
        ConformanceError: the promise is not kept.
    """
    if not kept:
        raise ConformanceError(sentence, evidence())
