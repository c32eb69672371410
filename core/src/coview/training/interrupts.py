"""When a run saves and when it ends: signals, the clock, and agreement between processes."""

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
"""Ctrl-C; the signal by which launchers end a job; the warning of SLURM's ``--signal=USR1``."""

SAME_ORDER = 1.0
"""Seconds within which a second signal counts as an echo of the first (by a shell, launcher)."""


class Interrupted(KeyboardInterrupt):
    """A signal asked this run to end.

    Attributes:
        number: the signal's number.
        at_once: it was a second signal: nothing more is saved.
    """

    def __init__(self, number: int, at_once: bool = False) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number
        self.at_once = at_once

    @property
    def status(self) -> int:
        """The exit status: 128 + the signal, as shells and schedulers expect; 1 for Ctrl-C."""
        return 1 if self.number == signal.SIGINT else 128 + self.number


class Interrupts:
    """A context that handles signals so that no step is left half done.

    A step stopped between the optimiser's update and the target's would leave a
    state that must not be saved, so a signal waits for the end of the step; a second
    one does not wait. Outside a step, a signal takes effect at once. With several
    processes it does so only where the others wait without a limit; elsewhere all
    processes are told, and stop after the same step.

    The signal of a terminal that is closed (SIGHUP) is ignored meanwhile.

    Only the main thread gets signals. A signal that is ignored, or that the calling
    program handles itself, is left alone.

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
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
                # A terminal that is closed ends what runs in it, but not a night's training.
                self._before[signal.SIGHUP] = signal.SIG_DFL
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
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
        """Make signals wait until the block is done."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        if not before:
            self.deliver()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Let a signal end the block at once, also with several processes."""
        before, self._held = self._held, False
        try:
            self.deliver()
            yield
        finally:
            self._held = before

    def deliver(self) -> None:
        """Raise an error if a signal was received.

        Raises:
            Interrupted: a signal was received.
        """
        if self.received:
            raise Interrupted(self.received)


@attrs.define
class Clock:
    """Decides when the next checkpoint is due, by steps or minutes."""

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
        """Whether a checkpoint is due; if so, the next interval starts here."""
        now = time.monotonic() / 60 if self.minutes else step
        if now - self.last < self.every:
            return False
        self.last = now
        return True


class Agreement:
    """Tells every process the largest value of all processes, one step later.

    A signal, or the minute when a checkpoint is due, reaches each process at a
    different step. If each acted alone, one would wait in the step's reduction for
    another that is already saving. So values are reduced in the background while
    the next step is computed, and read after it: nothing waits, and all processes
    read the same. A single process reads its own values at once.
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
        """Wait for values that are still being reduced."""
        if self._sent is not None:
            self._sent[0].wait()
            self._sent = None
