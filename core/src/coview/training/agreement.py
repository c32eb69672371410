"""What all processes must do after the same step: stop, or save."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from coview.distributed import active, control_group


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
