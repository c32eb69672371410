"""``--save-every``: when the next checkpoint is due."""

from __future__ import annotations

import time

import attrs

from coview.errors import RequestError


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
