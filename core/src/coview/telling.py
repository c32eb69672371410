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

PAUSE = 5.0
"""Seconds of silence at most, if the work has steps that are shorter."""

BEAT = 4.0
"""Seconds between two signs of life of work that cannot say how far it is."""

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)
_spoke: ContextVar[float] = ContextVar("spoke", default=0.0)


@contextmanager
def waiting(tell: Callable[[str], None], what: str) -> Iterator[None]:
    """Tell every few seconds, inside, that the work goes on, where nothing else can be told.

    Imports are such work: on a busy machine those of torch and its kin take half a minute.
    """
    ended, began = threading.Event(), time.monotonic()

    def say() -> None:
        while not ended.wait(BEAT):
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
    """Have ``tell`` told, inside, how far the work is: a line every five seconds at most."""
    listener, spoke = _listener.set(tell), _spoke.set(time.monotonic())
    try:
        yield
    finally:
        _listener.reset(listener)
        _spoke.reset(spoke)


def spoken() -> None:
    """Begin the silence anew: something else was told just now."""
    _spoke.set(time.monotonic())


def progress(what: str, done: int, total: int) -> None:
    """Tell how far the work is, unless something was told within the last five seconds.

    >>> with listening(print):
    ...     progress("images embedded", 256, 1000)  # nothing: it began just now
    """
    tell, now = _listener.get(), time.monotonic()
    if tell is not None and now - _spoke.get() >= PAUSE:
        _spoke.set(now)
        tell(f"{what}: {done:,} of {total:,}")
