"""When a run saves and when it ends: signals, the clock, and what all processes agree on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from coview.distributed import active, control_group
from coview.errors import RequestError

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
"""Ctrl-C; what schedulers and launchers end a job with; what SLURM's ``--signal=USR1`` warns by."""

SAME_ORDER = 1.0
"""Seconds within which a second signal is the first one's echo (of a shell, of a launcher)."""


class Interrupted(KeyboardInterrupt):
    """A signal asked this run to end.

    Attributes:
        number: the signal's.
        at_once: it was the second one: nothing is saved any more.
    """

    def __init__(self, number: int, at_once: bool = False) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number
        self.at_once = at_once

    @property
    def status(self) -> int:
        """The exit status: 128 + the signal, as shells and schedulers know it; 1 for Ctrl-C."""
        return 1 if self.number == signal.SIGINT else 128 + self.number


class Interrupts:
    """While entered, takes the signals; a step is done whole or not at all.

    A step that is cut between the optimiser's move and the target's would leave
    a state that no checkpoint may hold, so a signal waits for its end; a second
    one does not wait. Elsewhere a signal ends what goes on at once. Among
    several processes it ends only what the others wait for patiently, and else
    is told to all, so that all stop after the same step.

    Threads other than the main one get no signals. One that is ignored, or that
    the program around has a handler for, is left alone.

    Attributes:
        received: the first signal's number; 0: none.
        together: several processes share the run.
    """

    def __init__(self, together: bool = False) -> None:
        self.received = 0
        self.together = together
        self._since = 0.0
        self._held = together
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.received = 0
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
                before = signal.getsignal(number)
                if before in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._since = number, now
            if not self._held:
                raise Interrupted(number)
        elif now - self._since >= SAME_ORDER:
            raise Interrupted(number, at_once=True)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let a signal wait until the block is done."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        if not before:
            self.deliver()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Let a signal end the block at once, also among several processes."""
        before, self._held = self._held, False
        try:
            self.deliver()
            yield
        finally:
            self._held = before

    def deliver(self) -> None:
        """Raise what has been received.

        Raises:
            Interrupted: there was a signal.
        """
        if self.received:
            raise Interrupted(self.received)


@attrs.define
class Clock:
    """When the next checkpoint is due, in steps or minutes."""

    every: float
    minutes: bool
    last: float

    @classmethod
    def of(cls, text: str, step: int) -> Clock:
        """Read ``500`` or ``10m``.

        Raises:
            RequestError: it is neither.
        """
        minutes = text.endswith("m")
        try:
            every = float(text[:-1]) if minutes else int(text)
        except ValueError:
            every = 0
        if every <= 0:
            raise RequestError(f"--save-every takes steps (500) or minutes (10m), not {text!r}.")
        return cls(every, minutes, time.monotonic() / 60 if minutes else step)

    def due(self, step: int) -> bool:
        """Whether it is time; the next one is then counted from here."""
        now = time.monotonic() / 60 if self.minutes else step
        if now - self.last < self.every:
            return False
        self.last = now
        return True


class Agreement:
    """Tells every process the largest value that any of them has, one step later.

    A signal, or the minute that a checkpoint is due, comes to each process at a
    step of its own. Were each to act on its own, one would wait in the step's
    reduction for another that is already saving. So the values are reduced in
    the background while the next step is computed, and read after it: nothing
    waits, and all read the same. A single process reads its own at once.
    """

    def __init__(self) -> None:
        self._sent: tuple[Any, Tensor] | None = None

    def reached(self, *values: int) -> list[int]:
        """Send this process's values; return what was agreed on with the step before.

        Raises:
            RuntimeError: another process is gone, or did not answer in time.
        """
        if not active():
            return list(values)
        before = self._sent
        message = torch.tensor(values, dtype=torch.int64)
        work = dist.all_reduce(message, dist.ReduceOp.MAX, group=control_group(), async_op=True)
        self._sent = (work, message)
        if before is None:
            return [0] * len(values)
        before[0].wait()
        agreed: list[int] = before[1].tolist()
        return agreed

    def close(self) -> None:
        """Take in what is still on its way."""
        if self._sent is not None:
            self._sent[0].wait()
            self._sent = None
