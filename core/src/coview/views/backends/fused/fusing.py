"""The fused backend: which parts of a chain are standard, and can be run as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch

from coview.components import declared
from coview.nn import compile as compiling
from coview.views.backends.fused.plan import Fused
from coview.views.backends.kornia import described, flat
from coview.views.chain import Chain
from coview.views.operations import (
    DESCRIPTIONS,
    Crop,
    Description,
    Flip,
    Operation,
    OwnOperation,
    Standardize,
    ViewBackend,
    is_idle,
)


class FusedBackend(ViewBackend):
    """All views in one go: the default. A derived class may paint them in its own way."""

    cuts_whole = True
    kind: ClassVar[type[Fused]] = Fused

    @classmethod
    def chain(
        cls, descriptions: Sequence[Any], last: Any, compile: bool | None, dtype: torch.dtype
    ) -> Chain:
        """Return the chain, with every run of standard operations as one."""
        return Chain(fuse([*descriptions, last], compile, dtype, cls.kind))


def whether_compiled(choice: str) -> bool | None:
    """Return what ``views.compile`` asks for; None: as the run does (``auto``).

    Raises:
        RequestError: ``choice`` is "on" and there is no compiler.
    """
    if choice == "on":
        compiling.require_compiler("views.compile = on")
    return {"on": True, "off": False, "auto": None}[choice]


def fuse(
    operations: Iterable[Any],
    compile: bool | None = None,
    dtype: torch.dtype = torch.float32,
    kind: type[Fused] = Fused,
) -> list[Operation | Fused]:
    """Return the operations, with each sequence of standard ones as one :class:`Fused`.

    Args:
        operations: descriptions, objects with a ``description``, kornia's
            augmentations, or any callables.
        compile: whether to compile the fused ones; None: if the run compiles.
        dtype: number type of the output, if the last operation is a fused one.
        kind: what runs them.
    """
    made: list[Operation | Fused] = []
    run: list[Description] = []

    def close(dtype: torch.dtype) -> None:
        if any(not is_idle(one) for one in run):
            made.append(kind([tuple(run)], compile, dtype))
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
    own = declared(operation, OwnOperation, "description")
    return own if isinstance(own, DESCRIPTIONS) else described(operation)


def _extends(run: Sequence[Description], description: Description) -> bool:
    """Return whether a fused sequence may continue with the operation; see :class:`Fused`."""
    kinds = {type(one) for one in run}
    if Standardize in kinds:
        return False
    if isinstance(description, Crop):
        return kinds <= {Flip}
    return not (isinstance(description, Flip) and Flip in kinds)
