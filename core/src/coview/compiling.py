"""What a run may compile: its networks, and tensor functions that say they can be.

A hook cannot be compiled as it is: records, names and step numbers would be
compiled anew at every step. So whoever writes a component takes out what only
tensors go into::

    @compilable
    def distance(queries: Tensor, keys: Tensor) -> Tensor:
        ...

In a run with ``--compile`` it is one graph, whose pointwise operations become a
few kernels; in any other it is called as it stands. Numbers among its arguments
are part of the graph, so one that changes at every step must be a tensor.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from coview.encoders import Encoder
from coview.errors import RequestError

COMPILERS = ("c++", "g++", "clang++")

P = ParamSpec("P")
R = TypeVar("R")

_ON: ContextVar[bool] = ContextVar("compiling", default=False)


def compilable(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of tensors be compiled in runs that ask for it."""
    made: list[Callable[P, R]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _ON.get() or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if not made:
            made.append(torch.compile(function, dynamic=False))
        return made[0](*args, **kwargs)

    return call


def compiling() -> bool:
    """Whether what can be compiled is."""
    return _ON.get()


@contextmanager
def compiled(on: bool = True) -> Iterator[None]:
    """Compile, inside, what can be compiled."""
    token = _ON.set(on)
    try:
        yield
    finally:
        _ON.reset(token)


def compile_networks(method: nn.Module) -> None:
    """Compile trunk and heads of every encoder, the targets' copies too, for fixed shapes.

    Raises:
        RequestError: there is no compiler.
    """
    if not has_compiler():
        raise RequestError(
            f"--compile needs a C++ compiler (one of {', '.join(COMPILERS)}), or Triton on a GPU."
        )
    for encoder in method.modules():
        if isinstance(encoder, Encoder):
            for part in (encoder.trunk, encoder.projector, encoder.predictor):
                if part is not None:
                    part.compile(dynamic=False)


def has_compiler() -> bool:
    """Whether torch could compile for the device that runs would use."""
    if torch.cuda.is_available():
        from torch.utils._triton import has_triton

        return bool(has_triton())
    return any(shutil.which(name) for name in COMPILERS)
