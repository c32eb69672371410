"""The first values of a step that are not finite: whose they are, and the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import attrs
import torch
from torch import Tensor

from coview.hookspecs import ROLE_HOOKS, hookimpl
from coview.method.module import Method
from coview.method.relay import BuiltComponent
from coview.records import Encoded, Negatives, Step, Targets, Views
from coview.testing.errors import NotFiniteError
from coview.testing.evidence import first_not_finite
from coview.training.health import not_finite

LOSS = "loss_"
"""What the names begin with under which several losses are logged."""

Named = tuple[str, Tensor]


@attrs.define(eq=False)
class Watch:
    """An observer that keeps what a loss is made of, without waiting for the device.

    Attributes:
        records: by role, what its hook returned in the last forward pass, as a loss got it.
        losses: by name, each of several losses.
    """

    records: dict[str, Any] = attrs.field(factory=dict)
    losses: dict[str, Tensor] = attrs.field(factory=dict)

    def within(self, step: Step) -> Step:
        """Return the step of the next forward pass, whose losses are kept too."""
        self.records, self.losses = {}, {}

        def keep(name: str, value: Tensor) -> None:
            if name.startswith(LOSS):
                self.losses[name.removeprefix(LOSS)] = value
            step.sink(name, value)

        return attrs.evolve(step, sink=keep)

    @hookimpl
    def compute_loss(
        self, views: Views, encoded: Encoded, targets: Targets, negatives: tuple[Negatives, ...]
    ) -> None:
        """Keep the records; None lets the loss itself answer."""
        made = {"views": views, "encoder": encoded, "target": targets, "negatives": negatives}
        self.records = made


def refuse_loss(method: Method, watch: Watch, loss: Tensor, step: Step) -> None:
    """Refuse a loss that is not finite.

    Raises:
        NotFiniteError: the message names the first component that gave such values.
    """
    if bool(loss.isfinite().all()):
        return
    for role in ROLE_HOOKS:
        if role in watch.records:
            for source, name, values in _values(watch.records[role]):
                if not bool(values.isfinite().all()):
                    _refuse_record(method, role, source, (name, values), step)
    names = [name for name, value in watch.losses.items() if not bool(value.isfinite().all())]
    named = [part for part in _filling(method, "loss") if part.name in names]
    value = watch.losses[names[0]] if names else loss
    whose = _label(method, "loss", named[:1])
    shown = [f"{name} {_span(values)}" for name, values in _given(watch)]
    if others := [f"loss {n!r} is {_number(v)}" for n, v in watch.losses.items() if n not in names]:
        shown += others
    sentence = (
        f"the loss of step {step.number} is not finite: {whose} gives {_number(value)}, though "
        "all that it is given is finite"
    )
    raise NotFiniteError(whose, sentence, f"it is given {', '.join(shown)}" if shown else "")


def refuse_gradients(method: Method, loss: Tensor, step: Step) -> None:
    """Refuse gradients that are not finite.

    Raises:
        NotFiniteError: the message names the first parameter with such a gradient.
    """
    for name, parameter in method.components.named_parameters():
        gradient = parameter.grad
        if gradient is not None and not bool(gradient.isfinite().all()):
            sentence = (
                f"the loss of step {step.number} is {_number(loss)}, but the gradient of {name} is "
                "not finite: look for a square root, a norm or a division at 0"
            )
            evidence = f"gradient of {name}, {first_not_finite(gradient)}"
            raise NotFiniteError("the gradient", sentence, evidence)


def refuse_state(method: Method, step: Step) -> None:
    """Refuse parameters and buffers that a step has left not finite.

    Raises:
        NotFiniteError: the message names the first, and whose it is.
    """
    for name in not_finite(method.components)[:1]:
        key, values = name.partition(".")[0], method.components.state_dict(keep_vars=True)
        whose = method.parts[key].label
        shown = f"{name}, {first_not_finite(values[name])}" if name in values else ""
        sentence = f"after step {step.number}, {name} of {whose} is not finite, though its loss is"
        raise NotFiniteError(whose, sentence, shown)


def _refuse_record(
    method: Method, role: str, source: int | None, found: Named, step: Step
) -> NoReturn:
    name, values = found
    parts = _filling(method, role)
    named = parts[source : source + 1] if source is not None and source < len(parts) else parts
    whose = _label(method, role, named)
    sentence = (
        f"the loss of step {step.number} is not finite, because {whose} gives {name} that "
        f"{'are' if name.endswith('s') else 'is'} not finite"
    )
    raise NotFiniteError(whose, sentence, f"{name}, {first_not_finite(values)}")


def _filling(method: Method, role: str) -> list[BuiltComponent]:
    return [part for part in method.parts.values() if role in part.roles]


def _label(method: Method, role: str, named: list[BuiltComponent]) -> str:
    """Return whose a role's record is: its components', or a wrapper's around them."""
    parts = named or _filling(method, role)
    hook = ROLE_HOOKS[role]
    wraps = [p for p in _filling(method, "wrap") if hasattr(p.module, hook)]
    own = " or ".join(part.label for part in parts)
    around = ", ".join(wrap.label for wrap in wraps)
    return own + (f" (or {around}, which may wrap it)" if around else "")


def _values(record: Any) -> Iterator[tuple[int | None, str, Tensor]]:
    """Yield each tensor of a record, with the number of its source and its name."""
    if isinstance(record, Views):
        yield from ((None, f"view {n}", crop) for n, crop in enumerate(record.crops))
    elif isinstance(record, Encoded):
        for name in ("projections", "queries"):
            yield from ((None, f"{name}[{s}]", z) for s, z in getattr(record, name).items())
    elif isinstance(record, Targets):
        yield from ((None, f"keys[{slot}]", keys) for slot, keys in record.keys.items())
    else:
        for number, part in enumerate(record):
            drawn = {**part.vectors, **{pair: v for pair, (v, _) in part.by_pair.items()}}
            yield from ((number, f"vectors[{place}]", rows) for place, rows in drawn.items())


def _given(watch: Watch) -> Iterator[Named]:
    """Yield what a loss compares: queries, keys and negatives, the first of each."""
    for role in ("encoder", "target", "negatives"):
        found = [(n, v) for _, n, v in _values(watch.records.get(role, ())) if v.numel()]
        # Of an encoder, the queries, which come last.
        yield from found[-1:] if role == "encoder" else found[:1]


def _span(values: Tensor) -> str:
    least, most = (float(value) for value in torch.aminmax(values.detach()))
    return f"between {least:.4g} and {most:.4g}"


def _number(value: Tensor) -> str:
    return f"{float(value.detach()):.4g}" if not value.ndim else f"a tensor {tuple(value.shape)}"
