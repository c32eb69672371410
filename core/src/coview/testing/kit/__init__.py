"""What every method and data set promises: a function a promise, which says why it matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from coview.testing.kit import data, late, recipe, state, step, together, views

Check = Callable[[Any], str | None]
"""A check of a :class:`~coview.testing.subject.Subject`, or of a data set's
:class:`~coview.testing.source.SourceSubject`."""
PAGE = "docs/authors/promises.md"


@attrs.frozen(eq=False)
class Promise:
    """A promise and how to check it.

    Attributes:
        name: its name on the command line, for example ``reads-back``.
        check: raises :class:`~coview.testing.errors.ConformanceError` if the promise
            is not kept and :class:`~coview.testing.errors.NotTried` if it does not
            apply; may return a remark.
        slow: whether the check starts processes, which takes seconds.
        double: whether the method is checked in float64.
    """

    name: str
    check: Check
    slow: bool = False
    double: bool = False

    @property
    def page(self) -> str:
        """Where the documentation explains it."""
        return f"{PAGE}#{self.name}"

    @property
    def meaning(self) -> str:
        """What is promised, and why: the check's docstring."""
        return (self.check.__doc__ or "").strip()


def _promise(check: Check, slow: bool = False, double: bool = False) -> Promise:
    return Promise(check.__name__.replace("_", "-"), check, slow, double)


PROMISES: tuple[Promise, ...] = (
    _promise(recipe.loads),
    _promise(recipe.imports_no_torch, slow=True),
    _promise(recipe.imports_no_other_plugin),
    _promise(recipe.resolves),
    _promise(recipe.reads_back),
    _promise(recipe.documents_its_settings),
    _promise(recipe.refuses_wrong_settings),
    _promise(step.builds),
    _promise(views.fit_their_layout),
    _promise(views.follow_the_step),
    _promise(views.evaluate_without_randomness),
    _promise(step.gives_a_loss_with_gradient),
    _promise(step.descends, double=True),
    _promise(step.draws_from_the_step_alone),
    _promise(step.sees_no_labels),
    _promise(step.reads_memory_before_writing),
    _promise(step.never_waits_for_the_device),
    _promise(step.takes_other_channels),
    _promise(state.goes_on_exactly),
    _promise(state.accumulates, double=True),
    _promise(state.exports),
    _promise(late.holds_in_the_last_epoch),
    _promise(together.two_processes_equal_one, slow=True, double=True),
)
"""All promises in the order of checking: a failure of an early one explains later failures."""

PROMISES_OF_DATA: tuple[Promise, ...] = (
    _promise(data.opens),
    _promise(data.gives_images_as_it_says),
    _promise(data.keeps_its_count),
    _promise(data.labels_are_in_range),
    _promise(data.reads_the_same_again),
    _promise(data.keeps_its_splits_apart),
    _promise(data.has_its_fields_as_declared),
)
"""All promises of a data set, in the order of checking."""
