"""What counts as a sign of collapse, and how it is told to whoever trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from coview.components import Component, Guard, LossComponent, TargetComponent, declared
from coview.method.module import Method


@attrs.frozen
class Reading:
    """What was measured at a step.

    Attributes:
        values: the observer's measures.
        information: of a loss that makes assignments, else None
            (:func:`coview.losses.assignments.log_assignments`).
        mean_entropy: likewise.
    """

    values: Mapping[str, float]
    information: float | None = None
    mean_entropy: float | None = None


@attrs.frozen
class Sign:
    """One way of having collapsed.

    Attributes:
        metric: what it is told by.
        value: takes it from a reading; None where it does not apply.
        meaning: says what it means.
    """

    metric: str
    value: Callable[[Reading], float | None]
    meaning: Callable[[Reading], str]

    def shows(self, reading: Reading, bound: float) -> bool:
        """Whether a reading has it."""
        value = self.value(reading)
        return value is not None and value < bound


def _without_assignments(name: str) -> Callable[[Reading], float | None]:
    """Take a measure where no assignments tell more: prototypes often share few directions."""
    return lambda reading: None if reading.information is not None else reading.values[name]


def _how_assigned(reading: Reading) -> str:
    if (reading.mean_entropy or 0.0) < 0.5:
        return "one output takes all images"
    return "every image is spread alike over the outputs"


SIGNS: Mapping[str, Sign] = {
    "std": Sign(
        "collapse/std (1 is the spread of random directions)",
        _without_assignments("std"),
        lambda reading: "embeddings of different images are nearly the same",
    ),
    "rank": Sign(
        "collapse/effective_rank",
        _without_assignments("effective_rank"),
        lambda reading: "embeddings lie along a single direction",
    ),
    "information": Sign(
        "assignment_information (0 says nothing about the image, 1 all)",
        lambda reading: reading.information,
        _how_assigned,
    ),
}
"""By the name of the observer's setting that is its bound."""


def sentence(run: Any, name: str, reading: Reading, since: int) -> str:
    """Say what was seen, the likely cause, and what to try."""
    sign = SIGNS[name]
    return (
        f"Collapse: {sign.meaning(reading)}. At step {run.step} {sign.metric} is "
        f"{sign.value(reading):.3g}, and it has been as low since step {since}. {cause(run.method)}"
    )


def cause(method: Any) -> str:
    """Say which guards are missing (:class:`coview.components.Guard`), or else what to try."""
    found = guards_of(method)
    missing = [guard for guard in found if not guard.on]
    there = ", ".join(guard.what for guard in found if guard.on) or "nothing"
    slower = "a lower learning rate (optimizer.lr) or a longer warm-up (schedule.warmup_epochs)"
    if not missing:
        return f"What guards against it is all there ({there}): try {slower}."
    listed = "; ".join(f"{g.what} ({g.how})" if g.how else g.what for g in missing)
    return f"The likely cause is what is missing: {listed}. There is: {there}. Else try {slower}."


def guards_of(method: Method) -> list[Guard]:
    """Return what a method's components say, and what their roles say by themselves."""
    found = [_negatives(method), _constant_keys(method)]
    for component in method.components.values():
        found += declared(component, Component, "guards")()
    return [guard for guard in found if guard is not None]


def _negatives(method: Method) -> Guard | None:
    """Negatives, where the loss compares with any."""
    needs = declared(method.components["loss"], LossComponent, "needs")
    return Guard("negatives", True) if "negatives" in needs else None


def _constant_keys(method: Method) -> Guard | None:
    """Keys without gradient, which only negatives make needless."""
    parts = method.parts.values()
    targets = [part.module for part in parts if "target" in part.roles]
    passes = any(declared(target, TargetComponent, "passes_gradient") for target in targets)
    passes &= not declared(method.components["loss"], LossComponent, "constant_keys")
    if _negatives(method) is not None and passes:
        return None
    return Guard(
        "a stop of the gradient (the target passes it into its keys, and the loss has no negatives)"
        if passes
        else "keys without gradient",
        not passes,
        "--use target=stop-gradient or --use target=momentum",
    )
