"""How every seed that is derived from another one is derived."""

from __future__ import annotations

import hashlib


def hashed(text: str) -> int:
    """Return 64 bits that depend on every character of a text, equal on all machines."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def derived_seed(*parts: object) -> int:
    """Return a 63-bit seed from what it is for: ``derived_seed(seed, step, "views")``."""
    return hashed("/".join(map(str, parts))) >> 1
