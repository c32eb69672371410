"""A batch that fits: cut to the images there are and to the memory of the device.

Only a recipe's own batch is cut. One that the user asked for is used or refused.
"""

from __future__ import annotations

import attrs

from coview.components import NegativesComponent, declared
from coview.recipes.resolve import Resolved
from coview.training.estimate import Estimate

FITTED = "data"
"""The origin that is shown for a batch size that was cut."""


@attrs.frozen
class Limit:
    """The largest batch that fits, and what limits it."""

    batch: int
    why: str


def limit_of_data(resolved: Resolved, images: int, processes: int) -> Limit | None:
    """Return a batch of which an epoch has two or more, if the recipe's is larger.

    Args:
        resolved: the recipe.
        images: number of images to train on.
        processes: number of processes that share a batch.
    """
    if 2 * resolved.training.batch_size <= images or not _is_default(resolved):
        return None
    batch = _part_of(images // 2, resolved.training.accumulate * processes)
    return None if batch is None else Limit(batch, f"there are {images} images")


def limit_of_memory(
    resolved: Resolved, local: int, estimate: Estimate, free: int | None
) -> Limit | None:
    """Return a batch that fits into memory, if the recipe's does not.

    Args:
        resolved: the recipe.
        local: images that a process encodes at once now.
        estimate: what they need.
        free: bytes that there are; None: unknown, so nothing is cut.
    """
    if free is None or estimate.bytes <= free or not _is_default(resolved):
        return None
    groups = resolved.training.batch_size // local
    batch = _part_of(int(local * free / estimate.bytes) * groups, groups)
    why = (
        f"{resolved.training.batch_size} would need about {_gigabytes(estimate.bytes)} of memory, "
        f"of {_gigabytes(free)}"
    )
    return None if batch is None else Limit(batch, why)


def cut(resolved: Resolved, limit: Limit | None) -> Resolved:
    """Return the recipe with the batch of a limit, and a note that says so."""
    if limit is None:
        return resolved
    said = (
        f"The batch is {limit.batch}, not the recipe's {resolved.training.batch_size}: "
        f"{limit.why}{_meaning(resolved, limit.batch)}."
    )
    return attrs.evolve(
        resolved,
        training=attrs.evolve(resolved.training, batch_size=limit.batch),
        recipe=attrs.evolve(resolved.recipe, batch_size=limit.batch),
        origins={**resolved.origins, "batch_size": FITTED},
        notices=(*resolved.notices, said),
    )


def _is_default(resolved: Resolved) -> bool:
    origin = resolved.origins["batch_size"]
    return origin in ("recipe", FITTED) or origin.startswith("preset ")


def _part_of(most: int, groups: int) -> int | None:
    """Return the largest power of two times ``groups`` that is at most ``most``, 2 a group."""
    each = most // groups
    return None if each < 2 else groups * 2 ** (each.bit_length() - 1)


def _meaning(resolved: Resolved, batch: int) -> str:
    """Return what a smaller batch means for the method."""
    if negatives_from_batch(resolved):
        return f". Negatives are the batch's other images, so there are {batch - 1} for each"
    return ""


def negatives_from_batch(resolved: Resolved) -> bool:
    """Return whether an image's negatives are others of its batch, so a smaller one has fewer."""
    sources = resolved.parts["negatives"]
    return any(declared(part.factory, NegativesComponent, "from_batch") for part in sources)


def _gigabytes(number: int) -> str:
    return f"{number / 2**30:.3g} GiB"
