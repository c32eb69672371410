"""The pixel loops, as torch runs them or compiled into one pass over memory each.

Resampling stays torch's own (a compiler takes it apart and loses), and so does
everything that is not worth a compilation. A compiled kernel is the same Python
code; the first use of each takes seconds.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.errors import RequestError
from coview.views import blur, colour

LONG_RUN = 20_000
"""Steps from which a run repays half a minute of compilation."""

COMPILERS = ("c++", "g++", "clang++")


@attrs.frozen
class Kernels:
    """Loops over pixels; see :mod:`coview.views.colour` and :mod:`coview.views.blur`."""

    brighten_: Callable[..., Tensor] = colour.brighten_
    contrast_: Callable[..., Tensor] = colour.contrast_
    saturate_: Callable[..., Tensor] = colour.saturate_
    desaturate_: Callable[..., Tensor] = colour.desaturate_
    rotate_hue_: Callable[..., Tensor] = colour.rotate_hue_
    solarize_: Callable[..., Tensor] = colour.solarize_
    jitter_each_: Callable[..., Tensor] = colour.jitter_each_
    blur: Callable[..., Tensor] = blur.blur


EAGER = Kernels()


@functools.lru_cache(maxsize=1)
def compiled() -> Kernels:
    """Return the kernels compiled, for any number of images of any size."""
    made: dict[str, Any] = {
        field.name: torch.compile(getattr(EAGER, field.name), dynamic=True)
        for field in attrs.fields(Kernels)
        if field.name != "blur"
    }
    return Kernels(**made, blur=torch.compile(blur.blur_by_taps, dynamic=True))


def pick(choice: str, total_steps: int) -> Kernels:
    """Return the kernels that ``views.compile`` asks for.

    Args:
        choice: "on", "off", or "auto": in long runs, where a compiler is found.
        total_steps: of the run.

    Raises:
        RequestError: "on" without a compiler.
    """
    if choice == "on" and not has_compiler():
        raise RequestError(
            "views.compile = on needs a C++ compiler (one of "
            f"{', '.join(COMPILERS)}), or Triton on a GPU: install one, or leave it at auto."
        )
    wanted = choice == "on" or (choice == "auto" and total_steps >= LONG_RUN and has_compiler())
    return compiled() if wanted else EAGER


def has_compiler() -> bool:
    """Whether torch could compile for the device that runs would use."""
    if torch.cuda.is_available():
        from torch.utils._triton import has_triton

        return bool(has_triton())
    return any(shutil.which(name) for name in COMPILERS)
