"""Seeds derived from other seeds."""

from __future__ import annotations

import hashlib


def hashed(text: str) -> int:
    """Return a 64-bit hash of a text that is the same on all machines."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def derived_seed(*parts: object) -> int:
    """Return a 63-bit seed for a purpose: ``derived_seed(seed, step, "views")``."""
    return hashed("/".join(map(str, parts))) >> 1
