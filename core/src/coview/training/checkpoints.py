"""Checkpoints: everything a run needs to go on, in one file that is whole or not there."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.method import Method

FORMAT = 1


def save(
    path: Path,
    method: Method,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    identity: dict[str, Any],
    observers: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint after ``step`` optimiser steps.

    The position in the data and all randomness follow from the step's number
    and the seed, which is in ``identity``; nothing else needs keeping.
    """
    state = {
        "format": FORMAT,
        "step": step,
        "identity": identity,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "observers": observers or {},
        "random": torch.get_rng_state(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Raises:
        RequestError: there is none.
        CoviewError: it is damaged, or holds more than data.
    """
    if not path.is_file():
        raise RequestError(f"There is no checkpoint at {path}; the run cannot be resumed.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CoviewError(f"{path} is damaged or no checkpoint of coview's: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CoviewError(f"{path} is not a checkpoint this version of coview can read.")
    return state


def restore(
    state: dict[str, Any], method: Method, optimizer: Optimizer, scaler: torch.amp.GradScaler
) -> int:
    """Put a checkpoint's state back; return the number of steps done."""
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


def same_run(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with another recipe, data set or seed.

    Raises:
        RequestError: with every difference spelled out.
    """
    old, new = _flat(before), _flat(now)
    problems = [
        f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if problems:
        raise RequestError(*(f"This is not the run that was saved: {text}." for text in problems))


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity with the recipe's settings by name (``loss.temperature``)."""
    rest = {key: value for key, value in identity.items() if key != "recipe"}
    return rest | dict(_settings("", tomllib.loads(identity["recipe"])))


def _settings(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _settings(f"{prefix}.{key}" if prefix else key, item)
    else:
        yield prefix, value
