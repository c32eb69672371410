"""Whether a run's step fits the memory of a GPU, and into how many parts it must be cut."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from coview.plan import Plan
from coview.recipes.resolve import Resolved
from coview.testing.rehearsal import planned_bytes

ITSELF = 2**30
"""Bytes kept for CUDA's context and the scratch memory of its libraries: an allowance."""


@attrs.frozen
class Room:
    """What a step takes if it is done in so many parts.

    Attributes:
        accumulate: number of parts (micro-batches).
        bytes: what it takes, with the images kept on the device and :data:`ITSELF`.
        fits: whether the device has that many.
    """

    accumulate: int
    bytes: int
    fits: bool


def rooms(
    resolved: Resolved, plan: Plan, precision: str, memory: int, resident: int = 0
) -> Iterator[Room]:
    """Yield what a step takes as it is, then in twice as many parts, and so on until it fits.

    Args:
        resolved: the recipe.
        plan: the run's sizes.
        precision: fp32, tf32, bf16 or fp16.
        memory: bytes of the device.
        resident: bytes of the images that are kept on the device.
    """
    parts = plan.accumulate
    while plan.batch_size % parts == 0 and plan.batch_size // parts >= 2:
        training = attrs.evolve(resolved.training, accumulate=parts)
        cut = attrs.evolve(resolved, training=training)
        taken = planned_bytes(cut, attrs.evolve(plan, accumulate=parts), precision)
        room = Room(parts, taken + resident + ITSELF, taken + resident + ITSELF <= memory)
        yield room
        if room.fits:
            return
        parts *= 2
