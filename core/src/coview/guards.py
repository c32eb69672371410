"""What a component does against collapse, said by itself.

Without negatives something else must keep embeddings of different images apart.
A component that brings such a thing says so in an optional method ``guards``,
whether or not it is switched on; when a run collapses, the warning names what
is missing, and knows no method::

    def guards(self):
        return [Guard("a predictor", self.predictor is not None, "--set encoder.predictor=true")]

A target whose keys pass gradient back says so by ``passes_gradient = True``, and
a loss that takes keys as constants whatever the target by ``constant_keys = True``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from coview.method.module import Method


@attrs.frozen
class Guard:
    """One thing that works against collapse.

    Attributes:
        what: in a few words, e.g. ``"a predictor"``.
        on: whether this run has it.
        how: what switches it on.
    """

    what: str
    on: bool
    how: str = ""


def guards_of(method: Method) -> list[Guard]:
    """Return what a method's components say, and what their roles say by themselves."""
    found = [_negatives(method), _constant_keys(method)]
    for component in method.components.values():
        declared: Any = getattr(component, "guards", list)
        found += declared()
    return [guard for guard in found if guard is not None]


def _negatives(method: Method) -> Guard | None:
    """Negatives, where the loss compares with any."""
    needs = getattr(method.components["loss"], "needs", {})
    return Guard("negatives", True) if "negatives" in needs else None


def _constant_keys(method: Method) -> Guard | None:
    """Keys without gradient, which only negatives make needless."""
    parts = method.parts.values()
    targets = [part.module for part in parts if "target" in part.roles]
    passes = any(getattr(target, "passes_gradient", False) for target in targets)
    passes &= not getattr(method.components["loss"], "constant_keys", False)
    if _negatives(method) is not None and passes:
        return None
    return Guard(
        "a stop of the gradient (the target passes it into its keys, and the loss has no negatives)"
        if passes
        else "keys without gradient",
        not passes,
        "--use target=stop-gradient or --use target=momentum",
    )
