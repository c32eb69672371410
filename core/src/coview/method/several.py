"""Several components in one role: a sum of losses, a mixture of views."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from coview.components import LossComponent, declared
from coview.hookspecs import ROLE_HOOKS, WEIGHED, hookimpl
from coview.method.relay import BuiltComponent, answer, relay_of
from coview.plan import Notice
from coview.records import Batch, Encoded, Negatives, Step, Targets, Views
from coview.schedules import Schedule

Answer = Callable[[Mapping[str, Any]], Any]


def shared_roles(components: Sequence[BuiltComponent]) -> dict[str, list[BuiltComponent]]:
    """Return the roles that components fill together, or one alone with a weight."""
    found = {role: [c for c in components if role in c.roles] for role in WEIGHED}
    return {
        role: parts
        for role, parts in found.items()
        if len(parts) > 1 or (role == "loss" and parts and parts[0].weight != 1.0)
    }


def together(role: str, parts: Sequence[BuiltComponent]) -> object:
    """Return one plugin that answers a role's hook for several components."""
    answers = [(part, answer(part, ROLE_HOOKS[role])) for part in parts]
    return _summed(answers) if role == "loss" else _mixed(answers)


def tell_of_shared_negatives(losses: Sequence[BuiltComponent], notice: Notice) -> None:
    """Say which losses would do without the negatives that another one needs, but use them."""
    needing = [p for p in losses if "negatives" in declared(p.module, LossComponent, "needs")]
    names = ", ".join(repr(part.name) for part in needing)
    for part in losses:
        takes = inspect.signature(answered_by(part)).parameters
        if needing and part not in needing and "negatives" in takes:
            notice(
                f"loss {part.name!r} also gets the negatives that {names} needs, and uses them as "
                "it does alone: all losses share them"
            )


def answered_by(loss: BuiltComponent) -> Callable[..., Any]:
    """Return a loss's own implementation of its hook."""
    hook: Callable[..., Any] = getattr(loss.module, ROLE_HOOKS["loss"])
    return hook


def _summed(answers: Sequence[tuple[BuiltComponent, Answer]]) -> object:
    @hookimpl
    def compute_loss(
        encoder: Any,
        views: Views,
        encoded: Encoded,
        targets: Targets,
        negatives: tuple[Negatives, ...],
        batch: Batch,
        step: Step,
    ) -> Tensor:
        """Return the weighted sum; log each loss, without its weight, by its name."""
        given = {
            **{"encoder": encoder, "views": views, "encoded": encoded, "targets": targets},
            **{"negatives": negatives, "batch": batch, "step": step},
        }
        total: Any = 0.0
        for part, loss in answers:
            value = loss(given)
            step.log(f"loss_{part.name}", value)
            total = total + step.read(part.weight) * value
        summed: Tensor = total
        return summed

    return relay_of(compute_loss)


def _mixed(answers: Sequence[tuple[BuiltComponent, Answer]]) -> object:
    @hookimpl
    def generate_views(batch: Batch, step: Step) -> Views:
        """Return the views of one component, drawn by weight, the same on every process."""
        weights = [_now(part.weight, step) for part, _ in answers]
        draw = random.Random(step.seed_for("mixture of views"))
        _, make = draw.choices(answers, weights)[0]
        views: Views = make({"batch": batch, "step": step})
        return views

    return relay_of(generate_views)


def _now(weight: float | Schedule, step: Step) -> float:
    return weight.at(step) if isinstance(weight, Schedule) else weight
