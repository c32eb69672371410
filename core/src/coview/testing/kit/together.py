"""Promises on several processes."""

from __future__ import annotations

import attrs

from coview.testing.processes import compare, in_groups, train_part, train_together
from coview.testing.subject import Subject


def two_processes_equal_one(subject: Subject) -> None:
    """Two processes with half the batch each train exactly what one trains with all of it.

    Compared are the averaged gradients (including those through gathered keys) and,
    after three steps, all weights, queues, banks and centres, on both processes:
    under gloo, in float64, with synchronised batch norm. A gradient that is wrong by a
    factor of the number of processes still trains, only worse, and nobody notices.
    """
    subject = attrs.evolve(subject, device="cpu")
    (several,) = train_together([subject])
    compare(train_part(subject), several, in_groups(subject))
