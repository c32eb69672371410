"""How far long work is: told every few seconds to whoever listens, and else to nobody.

A command listens (:func:`listening`), so that minutes of embedding or of training a classifier
are not silent. Python code that calls the same functions hears nothing unless it listens too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PAUSE = 3.0
"""Seconds of silence after which work that has steps says how far it is."""
SILENCE = 4.0
"""Seconds of silence after which other work says that it goes on."""

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)
_last = 0.0
"""When something was told, by the clock of this process; all its threads share one terminal."""


@contextmanager
def waiting(tell: Callable[[str], None], what: str) -> Iterator[None]:
    """Tell every few seconds, inside, that the work goes on, where nothing else can be told.

    Imports are such work: on a busy machine those of torch and its kin take half a minute.
    """
    ended, began = threading.Event(), time.monotonic()
    if began - _last > 2 * SILENCE:
        spoken()

    def left() -> float:
        return SILENCE - (time.monotonic() - _last)

    def say() -> None:
        while not ended.wait(max(0.05, left())):
            if left() <= 0:
                spoken()
                tell(f"{what}: {time.monotonic() - began:.0f} s so far")

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def listening(tell: Callable[[str], None]) -> Iterator[None]:
    """Have ``tell`` told, inside, how far the work is: a line every three seconds at most."""
    listener = _listener.set(tell)
    spoken()
    try:
        yield
    finally:
        _listener.reset(listener)


def spoken() -> None:
    """Begin the silence anew: something was told just now."""
    global _last
    _last = time.monotonic()


def progress(what: str, done: int, total: int, since: float | None = None) -> None:
    """Tell how far the work is, unless something was told within the last three seconds.

    >>> with listening(print):
    ...     progress("images embedded", 256, 1000)  # nothing: it began just now

    Args:
        what: the work, in words.
        done, total: steps of it.
        since: when it began, by ``time.monotonic``; it is then said how long the rest takes.
    """
    tell, now = _listener.get(), time.monotonic()
    if tell is not None and now - _last >= PAUSE:
        left = (
            "" if since is None else f", about {(now - since) * (total - done) / done:.0f} s to go"
        )
        spoken()
        tell(f"{what}: {done:,} of {total:,}{left}")
