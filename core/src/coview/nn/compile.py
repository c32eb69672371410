"""Functions of tensors that a run may compile.

A whole hook cannot be compiled: its records, names and step numbers would cause a
new compilation at every step. Networks can be, and so can functions that take only
tensors. Authors of components put such code into a function of its own::

    @compilable()
    def distance(queries: Tensor, keys: Tensor) -> Tensor:
        ...

In a run with ``--compile`` it is one graph, whose pointwise operations become a
few kernels; in any other run it is called unchanged. Numbers among its arguments
are part of the graph, so a number that changes at every step must be a tensor.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch

from coview.caches import keep_compiled_programs_private
from coview.errors import RequestError

P = ParamSpec("P")
R = TypeVar("R")

_ON: ContextVar[bool] = ContextVar("compiling", default=False)
_VIEWS: ContextVar[bool | None] = ContextVar("compiling views", default=None)
LONG_RUN = 20_000
"""Steps from which a run repays a minute of compilation."""
SHORT_RUN = 1_000
"""Steps below which compilation, of a minute or two, is hardly won back."""
_MADE: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Compiled functions, by the function they were compiled from."""


def compilable(*, dynamic: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function of tensors to be compiled in runs that ask for it.

    Args:
        dynamic: make one graph for tensors of any size, instead of one per size.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            # Inside another compiled function it becomes part of that function's graph.
            if torch.compiler.is_compiling() or not _ON.get():
                return function(*args, **kwargs)
            if function not in _MADE:
                keep_compiled_programs_private()
                _MADE[function] = torch.compile(function, dynamic=dynamic)
            result: R = _MADE[function](*args, **kwargs)
            return result

        return call

    return decorate


def compiling() -> bool:
    """Return whether compilable functions are compiled here."""
    return torch.compiler.is_compiling() or _ON.get()


def compiling_views() -> bool | None:
    """Whether views are compiled here; None: as everything else is."""
    return _VIEWS.get()


@contextmanager
def compiled(on: bool | None = True, views: bool | None = None) -> Iterator[None]:
    """Turn compilation of compilable functions on or off inside the context.

    Args:
        on: for everything; None: as outside.
        views: for views alone; None: as for everything.
    """
    tokens = _ON.set(_ON.get() if on is None else on), _VIEWS.set(views)
    try:
        yield
    finally:
        _ON.reset(tokens[0])
        _VIEWS.reset(tokens[1])


def decide(asked: str, steps: int) -> str:
    """Return what a run compiles: ``on`` (everything), ``views`` or ``off``.

    ``auto`` compiles views in runs long enough to repay it, where a compiler is found.
    The answer is kept with the run: a compiled run and an eager one round differently.

    Raises:
        RequestError: a compiler is asked for that is not there.
    """
    if asked == "auto":
        asked = "views" if steps >= LONG_RUN and has_compiler() else "off"
    if asked != "off":
        keep_compiled_programs_private()
    if asked == "on":
        require_compiler("--compile")
    elif asked == "views":
        require_compiler("This run, whose views are compiled,")
    return asked


def require_compiler(asked: str) -> None:
    """Raise a ``RequestError`` if there is no compiler for the option ``asked``."""
    if not has_compiler():
        raise RequestError(
            f"{asked} needs a C++ compiler ({_cpp()}, or the one that CXX names) and, on a GPU, "
            "Triton and a C compiler. Install them, or run without it."
        )


def has_compiler() -> bool:
    """Return whether torch will find its compilers, for the CPU and for a GPU if there is one."""
    if shutil.which(_cpp()) is None:
        return False
    if not torch.cuda.is_available():
        return True
    from torch.utils._triton import has_triton

    # Triton can be present without the C compiler that it calls at the first kernel.
    c = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(c and has_triton())


def _cpp() -> str:
    """Return the only compiler that torch's inductor tries."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
