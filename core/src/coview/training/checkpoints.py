"""Checkpoints: everything that a run needs to continue, in one file, written atomically.

``last.pt`` is the newest; ``previous.pt`` is the one it replaced, in case the disk
loses a file; ``epoch-NNNN.pt`` are kept.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.optim import Optimizer

from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.method.module import Method
from coview.training import crafted
from coview.training.health import not_finite
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
    owed: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint after ``step`` optimiser steps.

    The position in the data and what components draw follow from the step's number
    and the seed (in ``identity``); torch's own generator, which an observer or a
    third-party layer may use, is saved. :func:`restore` puts all of it back.

    Raises:
        CoviewError: the disk is full or not writable; earlier checkpoints are unchanged.
    """
    state = {
        "format": FORMAT,
        "step": step,
        "identity": identity,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "observers": observers or {},
        "owed": owed,
        "random": torch.get_rng_state(),
    }
    keep = path.with_name(PREVIOUS) if path.name == LAST else None
    # An open file, not a path, so that torch passes on the operating system's error.
    with replacing(path, keep) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def refuse(path: Path, problems: Iterable[str]) -> None:
    """Refuse a checkpoint with problems.

    Raises:
        CoviewError: there is one; the message has the checkpoint and the first.
    """
    for problem in problems:
        raise CoviewError(f"{path} is damaged: {problem}")


@attrs.frozen
class Found:
    """The newest checkpoint that can be read.

    Attributes:
        path: its file.
        state: its content.
        damaged: newer checkpoints that cannot be read, each with a sentence.
    """

    path: Path
    state: dict[str, Any]
    damaged: tuple[tuple[Path, str], ...] = ()


def newest(run: Path) -> Found:
    """Return a run's newest undamaged checkpoint.

    Raises:
        RequestError: there is no checkpoint.
        CoviewError: all checkpoints are damaged.
    """
    folder = run / FOLDER
    by_epoch = sorted(folder.glob("epoch-*.pt"), reverse=True)
    there = [path for path in (folder / LAST, folder / PREVIOUS, *by_epoch) if path.is_file()]
    damaged: list[tuple[Path, str]] = []
    for path in there:
        try:
            state = read(path)
            refuse(path, crafted.problems(state))
            return Found(path, state, tuple(damaged))
        except CoviewError as error:
            damaged.append((path, str(error)))
    if not damaged:
        raise RequestError(f"There is no checkpoint at {folder / LAST}; the run cannot be resumed.")
    raise CoviewError(" ".join(text for _, text in damaged))


def put_aside(found: Found) -> list[str]:
    """Rename damaged checkpoints, so that they never replace a good one.

    Returns:
        One sentence for each.
    """
    sentences = []
    for path, text in found.damaged:
        aside = path.with_name(f"{path.name}.damaged")
        os.replace(path, aside)
        sentences.append(
            f"{text} It was renamed to {aside.name}; the run continues from {found.path.name}."
        )
    return sentences


def restore(
    state: dict[str, Any],
    method: Method,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    changed: Collection[str] = (),
    path: Path = Path(LAST),
) -> list[str]:
    """Restore a checkpoint's state.

    Args:
        state: the saved state.
        method, optimizer, scaler: built from the present recipe.
        changed: keys in which the present recipe differs from the saved one.
        path: the checkpoint's file, for messages.

    Returns:
        A sentence for each part that could not be restored.

    Raises:
        RequestError: the state does not fit the present recipe.
        CoviewError: it does not fit the recipe that it was saved with.
    """
    try:
        method.load_state_dict(state["method"])
    except RuntimeError as error:
        if not changed:
            why = " ".join(str(error).split())
            raise CoviewError(f"{path} is damaged: method does not fit: {why}") from error
        listed = ", ".join(sorted(changed))
        raise RequestError(
            f"The checkpoint does not fit the changed recipe ({listed}): {error}"
        ) from error
    refuse(path, (f"method.{name} is not finite." for name in not_finite(method)))
    sentences = _restore_optimizer(optimizer, state["optimizer"], changed, path)
    refuse(path, crafted.shapes(optimizer))
    scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"])
    return sentences


def _restore_optimizer(
    optimizer: Optimizer, state: dict[str, Any], changed: Collection[str], path: Path
) -> list[str]:
    anew = "The optimiser starts anew: the saved state does not fit it."
    if "optimizer.use" in changed:
        return [anew]
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError) as error:
        # The parameter groups differ, e.g. in which are decayed.
        if not changed:
            raise CoviewError(f"{path} is damaged: optimizer does not fit: {error}") from error
        return [anew]
    if changed:
        # Learning rates, decays and momenta come from the changed recipe.
        for group, settings in zip(optimizer.param_groups, own, strict=True):
            group.update(settings)
    return []
