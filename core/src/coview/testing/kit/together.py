"""Promises on several processes."""

from __future__ import annotations

import attrs

from coview.testing.errors import ConformanceError
from coview.testing.processes import compare, in_groups, train_part, train_together
from coview.testing.subject import Subject


def two_processes_equal_one(subject: Subject) -> None:
    """Two processes with half the batch each train exactly what one trains with all of it.

    Compared are the averaged gradients (including those through gathered keys) and,
    after three steps, all weights, queues, banks and centres, on both processes:
    under gloo, in float64, with synchronised batch norm. A gradient that is wrong by a
    factor of the number of processes still trains, only worse, and nobody notices. Three
    steps of the first epoch are tried, and three of the recipe's last.
    """
    subject = attrs.evolve(subject, device="cpu")
    # The last epoch too, for what begins in a later one than the first.
    tried = [subject] if subject.epochs == 1 else [subject, attrs.evolve(subject, late=True)]
    # Before processes start, whose errors would be less plain.
    alone = [train_part(one) for one in tried]
    for one, several, expected in zip(tried, train_together(tried), alone, strict=True):
        try:
            compare(expected, several, in_groups(one))
        except ConformanceError as error:
            if one.late:
                error.add_note(f"in epoch {one.epochs} of {one.epochs}")
            raise
