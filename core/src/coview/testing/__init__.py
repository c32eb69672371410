"""Tools for testing plugins: the conformance kit and helpers for tests."""

from coview.testing.checks import Result, Trial, promises, try_all
from coview.testing.errors import ConformanceError, NotTried
from coview.testing.recipes import has, resolved
from coview.testing.states import same
from coview.testing.subject import Subject
from coview.testing.synchronisation import Synchronisations

__all__ = [
    "ConformanceError",
    "NotTried",
    "Result",
    "Subject",
    "Synchronisations",
    "Trial",
    "has",
    "promises",
    "resolved",
    "same",
    "try_all",
]
