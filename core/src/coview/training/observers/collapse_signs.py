"""What counts as a sign of collapse, and the warning about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from coview.components import Component, Guard, LossComponent, TargetComponent, declared
from coview.method.module import Method


@attrs.frozen
class Reading:
    """The measurements of one step.

    Attributes:
        values: the observer's measures.
        information: the assignment information, for a loss that makes assignments
            (:func:`coview.losses.assignments.log_assignments`), else None.
        mean_entropy: the entropy of its mean assignment, else None.
    """

    values: Mapping[str, float]
    information: float | None = None
    mean_entropy: float | None = None


@attrs.frozen
class Sign:
    """One way to collapse.

    Attributes:
        metric: the metric that shows it, as named in the warning.
        value: returns its value in a reading, or None if it does not apply.
        meaning: returns what it means, in words.
    """

    metric: str
    value: Callable[[Reading], float | None]
    meaning: Callable[[Reading], str]

    def shows(self, reading: Reading, bound: float) -> bool:
        """Whether a reading shows this sign."""
        value = self.value(reading)
        return value is not None and value < bound


def _without_assignments(name: str) -> Callable[[Reading], float | None]:
    """Return a measure, unless there are assignments: prototypes often share few directions."""
    return lambda reading: None if reading.information is not None else reading.values[name]


def _how_assigned(reading: Reading) -> str:
    if (reading.mean_entropy or 0.0) < 0.5:
        return "one output takes all images"
    return "every image is spread over the outputs in the same way"


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
        "assignment_information (0: says nothing about the image, 1: everything)",
        lambda reading: reading.information,
        _how_assigned,
    ),
}
"""The signs, by the observer's setting that bounds them."""


def sentence(run: Any, name: str, reading: Reading, since: int) -> str:
    """Return the warning: what was seen, the likely cause, and what to try."""
    sign = SIGNS[name]
    return (
        f"Collapse: {sign.meaning(reading)}. At step {run.step}, {sign.metric} is "
        f"{sign.value(reading):.3g}; it has been this low since step {since}. {cause(run.method)}"
    )


def at_the_end(run: Any, name: str, reading: Reading, few: bool) -> str:
    """Return what the last step showed; ``few``: there were too few steps to be sure of it."""
    sign = SIGNS[name]
    seen = f"In its last step {sign.metric} is {sign.value(reading):.3g}."
    doubt = f" With {run.step} steps that may only be how training begins." if few else ""
    return f"The run ends collapsed: {sign.meaning(reading)}. {seen}{doubt}"


def cause(method: Any) -> str:
    """Return which safeguards (:class:`coview.components.Guard`) are missing, and what to try."""
    found = guards_of(method)
    missing = [guard for guard in found if not guard.on]
    there = ", ".join(guard.what for guard in found if guard.on) or "none"
    slower = "a lower learning rate (optimizer.lr) or a longer warm-up (schedule.warmup_epochs)"
    if not missing:
        return f"Active safeguards: {there}. None is missing: try {slower}."
    listed = "; ".join(f"{g.what} ({g.how})" if g.how else g.what for g in missing)
    return (
        f"Active safeguards: {there}. Missing: {listed}; this is the likely cause. "
        f"Otherwise try {slower}."
    )


def guards_of(method: Method) -> list[Guard]:
    """Return the safeguards that components declare, and those that follow from their roles."""
    found = [_negatives(method), _constant_keys(method)]
    for component in method.components.values():
        found += declared(component, Component, "guards")()
    return [guard for guard in found if guard is not None]


def _negatives(method: Method) -> Guard | None:
    """Return negatives as a safeguard, if the loss uses them."""
    needs = declared(method.components["loss"], LossComponent, "needs")
    return Guard("negatives", True) if "negatives" in needs else None


def _constant_keys(method: Method) -> Guard | None:
    """Return keys without gradient as a safeguard, unless the loss has one of its own.

    That is negatives, or what it declares (``guards``) and has switched on.
    """
    parts = method.parts.values()
    targets = [part.module for part in parts if "target" in part.roles]
    passes = any(declared(target, TargetComponent, "passes_gradient") for target in targets)
    passes &= not declared(method.components["loss"], LossComponent, "constant_keys")
    declares: Sequence[Guard] = declared(method.components["loss"], Component, "guards")()
    if passes and (_negatives(method) is not None or any(guard.on for guard in declares)):
        return None
    return Guard(
        "a stop-gradient (keys pass gradient back, and the loss has no negatives)"
        if passes
        else "keys without gradient",
        not passes,
        "--use target=stop-gradient or --use target=momentum",
    )
