"""Ctrl-C between steps: a step is done whole or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held_back() -> Iterator[None]:
    """Let a Ctrl-C wait until the block is done; a second one does not wait.

    A step that is cut between the optimiser's move and the target's would leave
    a state that no checkpoint may hold. Threads other than the main one get no
    signals, and an ignored signal stays ignored.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    caught: list[tuple[int, Any]] = []

    def hold(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append((number, frame))

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        before(*caught[0])
