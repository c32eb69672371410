"""Trying promises: for pytest, for `coview check`, for a loop of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from coview.errors import CoviewError, RequestError, unknown
from coview.recipes.configure import Changes
from coview.recipes.recipe import Recipe
from coview.testing.errors import ConformanceError, NotTried
from coview.testing.kit import PROMISES, Promise
from coview.testing.subject import Subject

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
FOUNDATIONS = ("loads", "resolves", "builds")
"""What does not keep these can keep no other."""


@attrs.frozen
class Result:
    """How a promise ended.

    Attributes:
        subject: the method or component.
        promise: its name.
        status: ``ok``, ``failed`` or ``skipped``.
        sentence: what was seen, or why it was not tried; may be empty if ok.
    """

    subject: str
    promise: str
    status: str
    sentence: str = ""


@attrs.frozen(eq=False)
class Trial:
    """A promise of one method: call it, and it raises what is wrong."""

    promise: Promise
    subject: Subject

    def __call__(self) -> None:
        """Try it.

        Raises:
            ConformanceError: it is not kept.
            NotTried: it does not apply; pytest counts a skipped test.
        """
        self.promise.check(self.subject)

    def __str__(self) -> str:
        return self.promise.name


def promises(
    method: str | Recipe, *, fast: bool = False, only: Sequence[str] = (), **changes: Any
) -> list[Trial]:
    """Return every promise of a method, for a test of one line.

    For pytest::

        @pytest.mark.parametrize("promise", promises("my-method"), ids=str)
        def test_my_method(promise):
            promise()

    Args:
        method: an installed method's name, or a recipe.
        fast: leave out those that start processes.
        only: these alone, by name.
        **changes: laid over the recipe, as in :func:`coview.train`: ``set={...}``,
            ``use={...}``, ``preset=``, ``backbone=``.

    Raises:
        RequestError: ``only`` names none.
    """
    subject = Subject(method, Changes(**changes))
    return [Trial(promise, subject) for promise in chosen(fast, only)]


def chosen(fast: bool = False, only: Sequence[str] = ()) -> list[Promise]:
    """Return the promises to try, in their order."""
    known = [promise.name for promise in PROMISES]
    if wrong := [unknown("promise", name, known) for name in only if name not in known]:
        raise RequestError(*wrong)
    return [p for p in PROMISES if (p.name in only or not only) and not (fast and p.slow)]


def try_all(subject: Subject, tried: Sequence[Promise]) -> Iterator[Result]:
    """Try promises in turn; once a foundation is missing, skip the rest."""
    missing = ""
    for promise in tried:
        if missing:
            yield Result(subject.name, promise.name, SKIPPED, f"without {missing}")
            continue
        result = attempt(subject, promise)
        yield result
        if result.status != OK and promise.name in FOUNDATIONS:
            missing = promise.name


def attempt(subject: Subject, promise: Promise) -> Result:
    """Try one promise; whatever goes wrong inside it is a sentence."""
    try:
        remark = promise.check(subject) or ""
    except NotTried as error:
        return Result(subject.name, promise.name, SKIPPED, str(error))
    except Exception as error:
        sentence, package = said(error), subject.package
        if package and package not in sentence:
            sentence = f"package {package}: {sentence}"
        return Result(subject.name, promise.name, FAILED, sentence)
    return Result(subject.name, promise.name, OK, remark)


def said(error: BaseException) -> str:
    """Return an error as one line that names the component and package it is of."""
    own = isinstance(error, (ConformanceError, CoviewError))
    text = str(error) if own else f"{type(error).__name__}: {error}"
    notes = getattr(error, "__notes__", ())
    return "; ".join(" ".join(line.split()) for line in (text, *notes))
