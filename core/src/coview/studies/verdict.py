"""From numbers of several seeds to a verdict: supported, not supported, or inconclusive.

Seeds are paired: two variants are compared run by run with the same seed, and
the mean difference gets a 95 % interval by Student's t. A rule says beforehand
what the interval must exclude.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import attrs

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
CONFIDENCE = 0.95

Values = Callable[[str], Sequence[float]]
"""Term -> its values, one for each seed in the seeds' order."""


@attrs.frozen
class Interval:
    """A mean and its 95 % interval (Student's t); of one value, the interval is unbounded."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Return the mean of at least one value, and its interval."""
        from scipy import stats

        mean, count = statistics.fmean(values), len(values)
        if count < 2:
            return cls(mean, -math.inf, math.inf)
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
        half = quantile * statistics.stdev(values) / math.sqrt(count)
        return cls(mean, mean - half, mean + half)


@attrs.frozen
class Finding:
    """What became of one expectation.

    Attributes:
        rule: the expectation in words.
        difference: the mean difference and its interval.
        verdict: one of the three.
    """

    rule: str
    difference: Interval
    verdict: str


@attrs.frozen
class Above:
    """One term is higher than another, by more than ``by``.

    A term is a variant's name (its first quantity), ``VARIANT:QUANTITY``, or a number.
    It is supported where the whole interval of the difference is above ``by``, and
    not supported where the whole interval is below.
    """

    higher: str | float
    lower: str | float
    by: float = 0.0

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that are measured."""
        return tuple(term for term in (self.higher, self.lower) if isinstance(term, str))

    @property
    def rule(self) -> str:
        """The rule in words."""
        if self.by < 0:
            return f"{_said(self.higher)} is less than {-self.by:g} below {_said(self.lower)}"
        by = f" by more than {self.by:g}" if self.by else ""
        return f"{_said(self.higher)} is above {_said(self.lower)}{by}"

    def judge(self, values: Values) -> Finding:
        """Return the finding for these values."""
        found = Interval.of(_differences(self.higher, self.lower, values))
        return Finding(self.rule, found, _verdict(found.low > self.by, found.high < self.by))


@attrs.frozen
class Alike:
    """Two terms differ by less than ``within``, in either direction.

    It is supported where the whole interval of the difference is within, and not
    supported where the whole interval is outside, on one side.
    """

    first: str | float
    second: str | float
    within: float

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that are measured."""
        return tuple(term for term in (self.first, self.second) if isinstance(term, str))

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"{_said(self.first)} and {_said(self.second)} differ by less than {self.within:g}"

    def judge(self, values: Values) -> Finding:
        """Return the finding for these values."""
        found = Interval.of(_differences(self.first, self.second, values))
        inside = -self.within < found.low and found.high < self.within
        outside = found.low > self.within or found.high < -self.within
        return Finding(self.rule, found, _verdict(inside, outside))


Expectation = Above | Alike


def overall(findings: Sequence[Finding]) -> str:
    """Return a study's verdict: all must hold, and one that fails decides."""
    verdicts = {finding.verdict for finding in findings}
    return _verdict(verdicts == {SUPPORTED}, NOT_SUPPORTED in verdicts)


def parted(term: str) -> tuple[str, str]:
    """Return a term's variant and quantity; no quantity: the first."""
    variant, _, quantity = term.partition(":")
    return variant, quantity


def _verdict(holds: bool, fails: bool) -> str:
    return SUPPORTED if holds else NOT_SUPPORTED if fails else INCONCLUSIVE


def _said(term: str | float) -> str:
    return term if isinstance(term, str) else f"{term:g}"


def _differences(first: str | float, second: str | float, values: Values) -> list[float]:
    measured = [values(term) for term in (first, second) if isinstance(term, str)]
    count = len(measured[0])
    both = [values(t) if isinstance(t, str) else [t] * count for t in (first, second)]
    return [a - b for a, b in zip(*both, strict=True)]
