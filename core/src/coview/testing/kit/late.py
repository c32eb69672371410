"""The promises on a step, in the recipe's last epoch."""

from __future__ import annotations

import attrs

from coview.testing.errors import NotTried
from coview.testing.kit import state, step, views
from coview.testing.subject import Subject

CHECKS = (
    views.fit_their_layout,
    views.follow_the_step,
    step.gives_a_loss_with_gradient,
    step.descends,
    step.draws_from_the_step_alone,
    step.sees_no_labels,
    step.reads_memory_before_writing,
    step.never_waits_for_the_device,
    state.goes_on_exactly,
    state.accumulates,
)


def holds_in_the_last_epoch(subject: Subject) -> str:
    """What a step promises in the first epoch holds in the recipe's last one too.

    A loss that begins after a few epochs, a layer that is frozen until then, and a value that
    follows a schedule are another code at the end than at the start, where nobody looks
    until a run of days arrives there. The steps of the last epoch are tried from fresh weights. A
    promise that the first epoch breaks is not tried again.
    """
    if subject.epochs == 1:
        raise NotTried("the recipe has one epoch, which the other promises try")
    late = attrs.evolve(subject, late=True)
    for check in CHECKS:
        name = check.__name__.replace("_", "-")
        if name in subject.failed:
            continue
        try:
            check(late)
        except NotTried:
            continue
        except Exception as error:
            error.add_note(f"in epoch {subject.epochs} of {subject.epochs}, which breaks {name}")
            raise
    return f"epoch {subject.epochs}"
