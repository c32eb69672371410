"""Seeds derived from other seeds."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


def hashed(text: str) -> int:
    """Return a 64-bit hash of a text that is the same on all machines."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def derived_seed(*parts: object) -> int:
    """Return a 63-bit seed for a purpose: ``derived_seed(seed, step, "views")``."""
    return hashed("/".join(map(str, parts))) >> 1


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore afterwards what the global generators were: Python's, NumPy's, torch's on the CPU."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch's CPU, of which other code draws.

    ``torch.manual_seed`` records a stack trace for each kind of device not in use,
    which takes a third of the time of a small image.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
