"""How far two accuracies may differ by chance."""

from __future__ import annotations

import math

CONFIDENCE = 1.96
"""Standard errors in a 95 % interval."""


def margin(first: float, second: float, images: int) -> float:
    """Return by how much two shares of as many images may differ by chance (95 %).

    The interval of the difference of two independent shares. On the same images the shares
    go together, so the true one is narrower: what is beyond this one is no chance.
    """
    variance = sum(share * (1 - share) for share in (first, second)) / images
    return CONFIDENCE * math.sqrt(variance)
