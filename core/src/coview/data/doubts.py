"""What is said of a loaded data set that nothing, or little, can be learned or measured with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from coview.data.bad_images import read
from coview.data.base import Split
from coview.data.splits import class_sizes, evenly_spaced
from coview.terminal import shown

SAMPLED = 32
"""Largest number of images that are compared with one another."""
NAMED = 5
"""How many classes are named."""


def alike(split: Split, deviation: Sequence[float]) -> Iterator[str]:
    """Yield a sentence if a sample of images, or a channel of all of them, never changes.

    Args:
        split: the training images.
        deviation: of each channel, as of :func:`coview.data.splits.statistics`: 1 where it is
            constant, which no other deviation of values in [0, 1] can be.
    """
    # What stands in for an image that cannot be read may be any of the others.
    rows = [row for row in evenly_spaced(len(split), SAMPLED) if row not in split.bad.faults]
    if len(rows) > 1 and _same(split, rows):
        yield (
            f"The {len(rows)} images that were looked at are all the same, so nothing can be "
            "learned from them. Is it the right folder, and data.range that of these values?"
        )
        return
    for number, one in enumerate(deviation, 1):
        if one == 1:
            yield f"Channel {number} of {len(deviation)} has one value in all that was looked at."


def _same(split: Split, rows: Sequence[int]) -> bool:
    first, faults = read(split.images, rows[0])
    for row in rows[1:]:
        image, more = read(split.images, row)
        if faults or more or not torch.equal(image, first):
            return False
    return True


def too_small(reference: Split, test: Split | None, classes: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on classes that one side of a measurement lacks.

    Args:
        reference: the labelled images that are learned from when accuracies are measured.
        test: those that are measured.
        classes: names of the classes, by label.
    """
    if test is None or reference.truth is None or test.truth is None:
        return
    both = reference.truth, test.truth
    trained, tested = (class_sizes(truth, len(classes)).tolist() for truth in both)
    of = f"of {len(classes)} classes have"
    untested = [n for n in range(len(classes)) if trained[n] and not tested[n]]
    if untested:
        listed = _some([f"{shown(classes[n])} ({trained[n]} to train on)" for n in untested])
        yield f"{len(untested)} {of} no image to test on, so no accuracy counts them: {listed}."
    untrained = [n for n in range(len(classes)) if tested[n] and not trained[n]]
    if untrained:
        listed = _some([f"{shown(classes[n])} ({tested[n]} to test on)" for n in untrained])
        yield (
            f"{len(untrained)} {of} no image to learn them from, so they are never recognised: "
            f"{listed}."
        )


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more
