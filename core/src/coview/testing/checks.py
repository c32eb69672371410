"""Checking promises: from pytest, from `coview check`, or in your own loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from coview.errors import CoviewError, RequestError, unknown
from coview.recipes.configure import Changes
from coview.recipes.recipe import Recipe
from coview.testing.errors import ConformanceError, NotFiniteError, NotTried
from coview.testing.kit import PROMISES, Promise
from coview.testing.source import SourceSubject
from coview.testing.subject import Subject

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
FOUNDATIONS = ("loads", "resolves", "builds", "opens")
"""Promises without which no other can be kept."""


@attrs.frozen
class Result:
    """The result of checking a promise.

    Attributes:
        subject: name of the method or component.
        promise: name of the promise.
        status: ``ok``, ``failed`` or ``skipped``.
        sentence: what was seen, or why it was skipped; may be empty if ok.
        precision: ``float64`` where that was used in place of float32.
        evidence: of a failure, the smallest numbers that show it; may be empty.
        page: of a failure, where the documentation explains the promise.
    """

    subject: str
    promise: str
    status: str
    sentence: str = ""
    precision: str = "float32"
    evidence: str = ""
    page: str = ""


@attrs.frozen(eq=False)
class Trial:
    """A promise of one method; calling it raises an error if the promise is not kept."""

    promise: Promise
    subject: Subject

    def __call__(self) -> None:
        """Check the promise.

        Raises:
            ConformanceError: the promise is not kept.
            NotTried: the promise does not apply; pytest counts a skipped test.
        """
        checked(self.subject, self.promise)

    def __str__(self) -> str:
        return self.promise.name


def promises(
    method: str | Recipe, *, fast: bool = False, only: Sequence[str] = (), **changes: Any
) -> list[Trial]:
    """Return every promise of a method, ready to be called in a test.

    With pytest::

        @pytest.mark.parametrize("promise", promises("my-method"), ids=str)
        def test_my_method(promise):
            promise()

    Args:
        method: an installed method's name, or a recipe.
        fast: leave out promises whose check starts processes.
        only: names of the promises to return; empty: all.
        **changes: changes to the recipe, as in :func:`coview.train`: ``set={...}``,
            ``use={...}``, ``preset=``, ``backbone=``.

    Raises:
        RequestError: ``only`` contains an unknown name.
    """
    subject = Subject(method, Changes(**changes))
    return [Trial(promise, subject) for promise in chosen(fast, only)]


def chosen(
    fast: bool = False, only: Sequence[str] = (), of: Sequence[Promise] = PROMISES
) -> list[Promise]:
    """Return the promises to check, in order."""
    known = [promise.name for promise in of]
    if wrong := [unknown("promise", name, known) for name in only if name not in known]:
        raise RequestError(*wrong)
    return [p for p in of if (p.name in only or not only) and not (fast and p.slow)]


def try_all(subject: Subject | SourceSubject, tried: Sequence[Promise]) -> Iterator[Result]:
    """Check promises in turn; if one of :data:`FOUNDATIONS` is not kept, skip the rest."""
    missing = ""
    for promise in tried:
        if missing:
            yield Result(subject.name, promise.name, SKIPPED, f"without {missing}")
            continue
        result = attempt(subject, promise)
        yield result
        if result.status != OK and promise.name in FOUNDATIONS:
            missing = promise.name


def checked(subject: Subject | SourceSubject, promise: Promise) -> str | None:
    """Check one promise and return its remark.

    Raises:
        NotTried: also if values are not finite, as another promise has told.
    """
    try:
        return promise.check(subject)
    except NotTried:
        raise
    except NotFiniteError as error:
        told = subject.failed.setdefault(error.whose, promise.name)
        if told != promise.name:
            raise NotTried(f"{error.whose} is not finite, as {told} says") from error
        raise
    except Exception:
        subject.failed[promise.name] = promise.name
        raise


def attempt(subject: Subject | SourceSubject, promise: Promise) -> Result:
    """Check one promise; any error inside it becomes a sentence of the result."""
    precision = "float64" if promise.double else "float32"
    try:
        remark = checked(subject, promise) or ""
    except NotTried as error:
        return Result(subject.name, promise.name, SKIPPED, str(error))
    except Exception as error:
        sentence, package = said(error), subject.package
        own = not isinstance(error, NotFiniteError)  # which names the package that is at fault
        if own and package and package not in sentence:
            sentence = f"package {package}: {sentence}"
        evidence = getattr(error, "evidence", "")
        return Result(
            subject.name, promise.name, FAILED, sentence, precision, evidence, promise.page
        )
    return Result(subject.name, promise.name, OK, remark, precision)


def said(error: BaseException) -> str:
    """Return an error as one line, which includes its notes on component and package."""
    own = isinstance(error, (ConformanceError, CoviewError))
    text = str(error) if own else f"{type(error).__name__}: {error}"
    text = getattr(error, "sentence", text)
    notes = getattr(error, "__notes__", ())
    return "; ".join(" ".join(line.split()) for line in (text, *notes))
