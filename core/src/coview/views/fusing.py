"""Which parts of a chain are the standard chain, and can be run as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from coview.views.chain import Operation
from coview.views.fused import Fused
from coview.views.kernels import EAGER, Kernels
from coview.views.kornia_chain import described, flat
from coview.views.operations import DESCRIPTIONS, Crop, Description, Flip, Standardize, is_idle


def fuse(
    operations: Iterable[Any],
    kernels: Kernels = EAGER,
    dtype: torch.dtype = torch.float32,
) -> list[Operation | Fused]:
    """Return the operations with every run of standard ones as one :class:`Fused`.

    Args:
        operations: descriptions, what has a ``description``, kornia's
            augmentations, anything callable.
        kernels: the pixel loops of the fused runs.
        dtype: of what comes out, if the last operation is a fused one.
    """
    made: list[Operation | Fused] = []
    run: list[Description] = []

    def close(dtype: torch.dtype) -> None:
        if any(not is_idle(one) for one in run):
            made.append(Fused([tuple(run)], kernels, dtype))
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
    """Whether a run may go on with the operation; see :class:`Fused`."""
    kinds = {type(one) for one in run}
    if Standardize in kinds:
        return False
    if isinstance(description, Crop):
        return kinds <= {Flip}
    return not (isinstance(description, Flip) and Flip in kinds)
