"""One thread: tests are small, and threads of several processes get in each other's way.

And no reports of the runs that tests train: they take longer than the training.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

torch.set_num_threads(1)
os.environ["COVIEW_NO_REPORT"] = "1"


@pytest.fixture
def interrupted_at() -> Callable[[int], Callable[[int], None]]:
    """Make what is told of progress: it interrupts the work once so many are done."""

    def make(most: int) -> Callable[[int], None]:
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            if done >= most:
                raise KeyboardInterrupt

        return told

    return make
