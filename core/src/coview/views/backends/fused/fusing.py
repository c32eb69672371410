"""Finding the parts of a chain that are standard operations and can run as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from coview.nn import compile as compiling
from coview.views.backends.fused.plan import Fused
from coview.views.backends.kornia import described, flat
from coview.views.chain import Operation
from coview.views.operations import DESCRIPTIONS, Crop, Description, Flip, Standardize, is_idle

LONG_RUN = 20_000
"""Number of steps from which a minute of compilation pays off."""


def whether_compiled(choice: str, total_steps: int) -> bool | None:
    """Return whether ``views.compile`` asks for compilation; None: only if the run compiles.

    Args:
        choice: "on", "off", or "auto": in long runs, if a compiler is found.
        total_steps: number of steps of the run.

    Raises:
        RequestError: ``choice`` is "on" and there is no compiler.
    """
    if choice == "off":
        return False
    if choice == "on":
        compiling.require_compiler("views.compile = on")
        return True
    return True if total_steps >= LONG_RUN and compiling.has_compiler() else None


def fuse(
    operations: Iterable[Any],
    compile: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Operation | Fused]:
    """Return the operations, with each sequence of standard ones as one :class:`Fused`.

    Args:
        operations: descriptions, objects with a ``description``, kornia's
            augmentations, or any callables.
        compile: whether to compile the fused ones; None: if the run compiles.
        dtype: number type of the output, if the last operation is a fused one.
    """
    made: list[Operation | Fused] = []
    run: list[Description] = []

    def close(dtype: torch.dtype) -> None:
        if any(not is_idle(one) for one in run):
            made.append(Fused([tuple(run)], compile, dtype))
        run.clear()

    for operation in flat(operations):
        description = _description(operation)
        if description is None:
            close(torch.float32)
            made.append(operation)
            continue
        if not _extends(run, description):
            close(torch.float32)
        run.append(description)
    close(dtype)
    return made


def _description(operation: Any) -> Description | None:
    if isinstance(operation, DESCRIPTIONS):
        return operation
    own = getattr(operation, "description", None)
    return own if isinstance(own, DESCRIPTIONS) else described(operation)


def _extends(run: Sequence[Description], description: Description) -> bool:
    """Return whether a fused sequence may continue with the operation; see :class:`Fused`."""
    kinds = {type(one) for one in run}
    if Standardize in kinds:
        return False
    if isinstance(description, Crop):
        return kinds <= {Flip}
    return not (isinstance(description, Flip) and Flip in kinds)
