"""Stochastic depth that draws from the step, so that n processes drop what one would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from coview.distributed import rank, world_size
from coview.records import Step

_STEP: ContextVar[Step | None] = ContextVar("step", default=None)


class SharedDropPath(DropPath):
    """timm's drop path with draws made in advance; without any it draws as timm's does.

    Attributes:
        kept: (rows,) factor of each row of the branch: 0 for a dropped row, else
            1 / (1 - probability).
    """

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return (rows, ...), with dropped rows set to zero."""
        dealt = self.kept is not None and len(self.kept) == len(x)
        if self.kept is None or not dealt or not self.training or not self.drop_prob:
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        return x * self.kept.view(-1, *(1,) * (x.ndim - 1)).to(x.dtype)


@contextmanager
def drawing(step: Step) -> Iterator[None]:
    """Let networks that run inside the context draw from this step."""
    token = _STEP.set(step.within("drop-path"))
    try:
        yield
    finally:
        _STEP.reset(token)


def share(network: nn.Module) -> list[SharedDropPath]:
    """Replace timm's drop paths in place; return those that drop anything."""
    found = []
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is DropPath and child.drop_prob:
                shared = SharedDropPath(child.drop_prob, child.scale_by_keep)
                setattr(module, name, shared)
                found.append(shared)
    return found


def deal(paths: Sequence[SharedDropPath], views: int, rows: int) -> None:
    """Draw for the network's next call, on ``views`` x ``rows`` images, view by view.

    Numbers are drawn for the rows of all processes, and this process takes its own.
    """
    step = _STEP.get()
    paths = [path for path in paths if path.drop_prob]
    if step is None or not paths or not paths[0].training:
        for path in paths:
            path.kept = None
        return
    generator = step.generator
    shape = (len(paths), views, rows * world_size())
    draws = torch.rand(shape, generator=generator, device=generator.device)
    own = draws[..., rank() * rows : (rank() + 1) * rows].flatten(1)
    for path, draw in zip(paths, own, strict=True):
        keep = 1 - path.drop_prob
        path.kept = (draw < keep).float() / (keep if path.scale_by_keep and keep else 1.0)
