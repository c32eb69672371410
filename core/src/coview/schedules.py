"""Values that move during training: momentum, temperature, weight decay.

A schedule is data: it stands in a recipe, prints as ``cosine(0.996, 1.0)``, is
read back from that text, and gives its value at a step. It does not need torch.
"""

from __future__ import annotations

import ast
import math
from typing import Any

import attrs

RATE_RULES = ("none", "linear", "sqrt")
"""How a learning rate grows with the batch size: not, x batch / 256, x sqrt(batch)."""


def rate_scale(rule: str, batch_size: int) -> float:
    """Return the factor by which a rule scales a learning rate at a batch size."""
    return {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}[rule]


def half_cosine(fraction: float) -> float:
    """Return half a cosine wave: 1 at fraction 0, 0 at 1 (arXiv:1608.03983)."""
    return (1.0 + math.cos(math.pi * fraction)) / 2.0


@attrs.frozen
class Schedule:
    """A value that goes from ``start`` to ``end``.

    Args:
        kind: ``"cosine"`` (half a cosine wave) or ``"linear"``.
        start: the value at the first step.
        end: the value at the end; ``endpoint`` says when it is reached.
        epochs: length in epochs; afterwards the value stays at ``end``.
            ``None`` means the whole training.
        per: ``"step"`` or ``"epoch"``: how often the value changes.
        endpoint: when ``end`` is reached. False (default): one index after the
            last, so that M steps divide the way into M parts (BYOL's momentum).
            True: at the last index itself, as in a closed interval (DINO's
            teacher temperature, which reaches its end at epoch M - 1).
    """

    kind: str = attrs.field(validator=attrs.validators.in_(("cosine", "linear")))
    start: float = attrs.field(converter=float)
    end: float = attrs.field(converter=float)
    epochs: float | None = None
    per: str = attrs.field(default="step", validator=attrs.validators.in_(("step", "epoch")))
    endpoint: bool = False

    def at(self, step: Any) -> float:
        """Return the value at ``step`` (a :class:`coview.Step`), which only its number decides."""
        return self.value(*self._position(step))

    def value(self, index: float, length: float) -> float:
        """Return the value at ``index`` of ``length`` (steps or epochs)."""
        last = length - 1 if self.endpoint else length
        fraction = 1.0 if last <= 0 else min(max(index / last, 0.0), 1.0)
        if self.kind == "linear":
            return self.start + (self.end - self.start) * fraction
        return self.end + (self.start - self.end) * half_cosine(fraction)

    def _position(self, step: Any) -> tuple[float, float]:
        epochs = float(step.total_epochs) if self.epochs is None else self.epochs
        if self.per == "epoch":
            return float(step.epoch), epochs
        length = step.total_steps if self.epochs is None else epochs * step.steps_per_epoch
        return float(step.number), float(length)

    def __str__(self) -> str:
        parts = [f"{self.start!r}", f"{self.end!r}"]
        if self.epochs is not None:
            parts.append(f"epochs={self.epochs!r}")
        if self.per != "step":
            parts.append(f"per={self.per!r}")
        if self.endpoint:
            parts.append("endpoint=True")
        return f"{self.kind}({', '.join(parts)})"


def cosine(
    start: float,
    end: float,
    *,
    epochs: float | None = None,
    per: str = "step",
    endpoint: bool = False,
) -> Schedule:
    """Half a cosine wave from ``start`` to ``end``; see :class:`Schedule`."""
    return Schedule("cosine", start, end, epochs, per, endpoint)


def linear(
    start: float,
    end: float,
    *,
    epochs: float | None = None,
    per: str = "step",
    endpoint: bool = False,
) -> Schedule:
    """A straight line from ``start`` to ``end``; see :class:`Schedule`."""
    return Schedule("linear", start, end, epochs, per, endpoint)


def parse(text: str) -> Schedule:
    """Read ``cosine(0.996, 1.0, epochs=30)``.

    Raises:
        ValueError: the text is not a schedule; the message says what one looks like.
    """
    expected = (
        f"{text!r} is neither a number nor a schedule: write a number, cosine(START, END) "
        "or linear(START, END)"
    )
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError(expected)
        maker = {"cosine": cosine, "linear": linear}[call.func.id]
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {key.arg: ast.literal_eval(key.value) for key in call.keywords if key.arg}
        return maker(*positional, **named)
    except (SyntaxError, KeyError, TypeError, ValueError) as error:
        raise ValueError(expected) from error
