"""Tools for testing plugins: the conformance kit, made-up records, a driver, assertions."""

from coview.testing.assertions import (
    assert_equal_between_processes,
    assert_gradient,
    assert_identical,
    assert_loss_gradient,
)
from coview.testing.checks import Result, Trial, promises, try_all
from coview.testing.driver import Done, a_method_of, one_step
from coview.testing.errors import ConformanceError, NotFiniteError, NotTried
from coview.testing.fakes import (
    a_batch,
    a_plan,
    a_step,
    an_encoded,
    some_negatives,
    some_targets,
    some_views,
)
from coview.testing.recipes import has, resolved
from coview.testing.rehearsal import Rehearsed, rehearse
from coview.testing.states import same
from coview.testing.subject import Subject
from coview.testing.synchronisation import Synchronisations

__all__ = [
    "ConformanceError",
    "Done",
    "NotFiniteError",
    "NotTried",
    "Rehearsed",
    "Result",
    "Subject",
    "Synchronisations",
    "Trial",
    "a_batch",
    "a_method_of",
    "a_plan",
    "a_step",
    "an_encoded",
    "assert_equal_between_processes",
    "assert_gradient",
    "assert_identical",
    "assert_loss_gradient",
    "has",
    "one_step",
    "promises",
    "rehearse",
    "resolved",
    "same",
    "some_negatives",
    "some_targets",
    "some_views",
    "try_all",
]
