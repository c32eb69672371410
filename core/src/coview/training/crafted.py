"""What a checkpoint may hold: numbers that a run can have, in tables of the right form.

Reading executes nothing (:mod:`coview.weights.checkpoint`), but a step of minus one, a rate
that is not a number or a momentum of another shape would go on into training; the last of
these even past the memory of a tensor.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from coview.settings import read_toml

TABLES = ("identity", "method", "optimizer", "scaler", "observers")
MOST_STEPS = 2**53
LIKE_ITS_PARAMETER = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
"""State of optimisers that has the shape of the parameter it belongs to."""


def problems(state: Mapping[str, Any], most_steps: int = MOST_STEPS) -> Iterator[str]:
    """Yield a sentence, with the field's name, for each thing that no run can have saved."""
    step = state.get("step")
    if type(step) is not int or not 0 <= step <= most_steps:
        yield f"step must be a whole number from 0 to {most_steps}, not {_short(step)}."
    for name in TABLES:
        if not isinstance(state.get(name), Mapping):
            yield f"{name} must be a table, not {_short(state.get(name))}."
    yield from _of_identity(state.get("identity"))
    yield from _of_optimizer(state.get("optimizer"))
    yield from _numbers("scaler", state.get("scaler"))
    yield from _of_owed(state.get("owed"))
    random, here = state.get("random"), torch.get_rng_state()
    if not isinstance(random, Tensor) or (random.dtype, random.shape) != (here.dtype, here.shape):
        yield f"random must be the state of a generator ({len(here)} bytes)."


def _of_identity(identity: Any) -> Iterator[str]:
    recipe = identity.get("recipe") if isinstance(identity, Mapping) else ""
    try:
        read_toml(recipe)  # type: ignore[arg-type]
    except (TypeError, AttributeError, tomllib.TOMLDecodeError) as error:
        yield f"identity.recipe must be a recipe in TOML ({error})."


def _of_optimizer(optimizer: Any) -> Iterator[str]:
    if not isinstance(optimizer, Mapping):
        return
    groups, kept = optimizer.get("param_groups"), optimizer.get("state")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        yield f"optimizer.param_groups must be a list of tables, not {_short(groups)}."
    elif not isinstance(kept, Mapping):
        yield f"optimizer.state must be a table, not {_short(kept)}."
    else:
        yield from _numbers("optimizer", optimizer)


def _of_owed(owed: Any) -> Iterator[str]:
    if owed is None:
        return
    if not isinstance(owed, Mapping) or not isinstance(owed.get("means"), Mapping):
        yield f"owed must be a table with means, not {_short(owed)}."
    elif type(owed.get("entries")) is not int or owed["entries"] < 0:
        yield f"owed.entries must be a whole number of at least 0, not {owed.get('entries')!r}."


def _numbers(place: str, value: Any) -> Iterator[str]:
    """Yield a sentence for each number in tables and lists that is not finite."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(f"{place}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _numbers(f"{place}.{number}", item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place} must be finite, not {value}."
    elif isinstance(value, Tensor) and not bool(value.isfinite().all()):
        yield f"{place} must be finite, and is not everywhere."


def shapes(optimizer: Optimizer) -> Iterator[str]:
    """Yield a sentence for each state of a parameter that has not the parameter's shape."""
    number = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name in LIKE_ITS_PARAMETER:
                kept = optimizer.state.get(parameter, {}).get(name)
                if kept is not None and getattr(kept, "shape", None) != parameter.shape:
                    yield (
                        f"optimizer.state.{number}.{name} has shape {_shape(kept)}, its parameter "
                        f"{_shape(parameter)}."
                    )
            number += 1


def _shape(tensor: Any) -> str:
    return str(tuple(tensor.shape)) if isinstance(tensor, Tensor) else _short(tensor)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:76]} ..."
