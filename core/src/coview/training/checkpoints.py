"""Checkpoints: everything a run needs to go on, in one file that is whole or not there.

``last.pt`` is the newest; ``previous.pt`` is what it replaced, so that there is
another where a disk loses a file; ``epoch-NNNN.pt`` stay.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.optim import Optimizer

from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.method.module import Method
from coview.weights.checkpoint import FORMAT, read

FOLDER = "checkpoints"
LAST, PREVIOUS = "last.pt", "previous.pt"


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

    Raises:
        CoviewError: the disk is full or may not be written; what was saved is as it was.
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
    keep = path.with_name(PREVIOUS) if path.name == LAST else None
    # An open file, not a path: torch then says what the operating system said.
    with replacing(path, keep) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


@attrs.frozen
class Found:
    """The newest checkpoint that can be read.

    Attributes:
        path: its file.
        state: what it holds.
        damaged: newer ones that cannot be read, each with a sentence.
    """

    path: Path
    state: dict[str, Any]
    damaged: tuple[tuple[Path, str], ...] = ()


def newest(run: Path) -> Found:
    """Return a run's newest checkpoint that is whole.

    Raises:
        RequestError: there is none at all.
        CoviewError: all that there are are damaged.
    """
    folder = run / FOLDER
    by_epoch = sorted(folder.glob("epoch-*.pt"), reverse=True)
    there = [path for path in (folder / LAST, folder / PREVIOUS, *by_epoch) if path.is_file()]
    damaged: list[tuple[Path, str]] = []
    for path in there:
        try:
            return Found(path, read(path), tuple(damaged))
        except CoviewError as error:
            damaged.append((path, str(error)))
    if not damaged:
        raise RequestError(f"There is no checkpoint at {folder / LAST}; the run cannot be resumed.")
    raise CoviewError(" ".join(text for _, text in damaged))


def put_aside(found: Found) -> list[str]:
    """Give damaged checkpoints another name, so that none takes a whole one's place.

    Returns:
        A sentence for each.
    """
    sentences = []
    for path, text in found.damaged:
        aside = path.with_name(f"{path.name}.damaged")
        os.replace(path, aside)
        sentences.append(f"{text} It is now {aside.name}; the run goes on from {found.path.name}.")
    return sentences


def restore(
    state: dict[str, Any],
    method: Method,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    changed: Collection[str] = (),
) -> list[str]:
    """Put a checkpoint's state back.

    Args:
        state: what was saved.
        method, optimizer, scaler: as the recipe makes them now.
        changed: keys in which that differs from the recipe the state is of.

    Returns:
        A sentence for what could not be kept.

    Raises:
        RequestError: the state does not fit what the recipe is now.
    """
    try:
        method.load_state_dict(state["method"])
    except RuntimeError as error:
        if not changed:
            raise
        listed = ", ".join(sorted(changed))
        raise RequestError(
            f"The checkpoint does not fit the changed recipe ({listed}): {error}"
        ) from error
    sentences = _restore_optimizer(optimizer, state["optimizer"], changed)
    scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"])
    return sentences


def _restore_optimizer(
    optimizer: Optimizer, state: dict[str, Any], changed: Collection[str]
) -> list[str]:
    anew = "The optimiser starts anew: its state is not that of the one before."
    if "optimizer.use" in changed:
        return [anew]
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except ValueError:  # other groups of parameters: some are decayed now that were not
        if not changed:
            raise
        return [anew]
    if changed:
        # Rates, decays and momenta are the changed recipe's.
        for group, settings in zip(optimizer.param_groups, own, strict=True):
            group.update(settings)
    return []
