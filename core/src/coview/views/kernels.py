"""The pixel loops, as torch runs them or compiled into one pass over memory each.

Resampling stays torch's own (a compiler takes it apart and loses), and so does
everything that is not worth a compilation. A compiled kernel is the same Python
code; the first use of each takes seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.compiling import COMPILERS, compiling, has_compiler
from coview.errors import RequestError
from coview.views import blur, colour, draws, resample

LONG_RUN = 20_000
"""Steps from which a run repays half a minute of compilation."""


@attrs.frozen
class Kernels:
    """Loops over pixels, and over what is drawn for them.

    See :mod:`coview.views.colour`, :mod:`~coview.views.blur`,
    :mod:`~coview.views.resample` and :mod:`~coview.views.draws`.
    """

    brighten_: Callable[..., Tensor] = colour.brighten_
    contrast_: Callable[..., Tensor] = colour.contrast_
    saturate_: Callable[..., Tensor] = colour.saturate_
    desaturate_: Callable[..., Tensor] = colour.desaturate_
    rotate_hue_: Callable[..., Tensor] = colour.rotate_hue_
    solarize_: Callable[..., Tensor] = colour.solarize_
    jitter_each_: Callable[..., Tensor] = colour.jitter_each_
    taps: Callable[..., Tensor] = blur.taps_of
    blur: Callable[..., Tensor] = blur.blur
    matrices: Callable[..., tuple[Tensor, Tensor]] = resample.matrices
    grids: Callable[..., list[Tensor]] = resample.grids
    sample: Callable[..., tuple[draws.Drawn, ...]] = draws.sample


EAGER = Kernels()


@functools.lru_cache(maxsize=1)
def compiled() -> Kernels:
    """Return the kernels compiled, for any number of images of any size."""
    eager = {field.name: getattr(EAGER, field.name) for field in attrs.fields(Kernels)}
    eager["blur"] = blur.blur_by_taps
    made: dict[str, Any] = {
        name: torch.compile(function, dynamic=True) for name, function in eager.items()
    }
    return Kernels(**made)


def pick(choice: str, total_steps: int) -> Kernels:
    """Return the kernels that ``views.compile`` asks for.

    Args:
        choice: "on", "off", or "auto": in long runs, where a compiler is found, and in
            those with ``--compile``.
        total_steps: of the run.

    Raises:
        RequestError: "on" without a compiler.
    """
    if choice == "on" and not has_compiler():
        raise RequestError(
            "views.compile = on needs a C++ compiler (one of "
            f"{', '.join(COMPILERS)}), or Triton on a GPU: install one, or leave it at auto."
        )
    long = compiling() or total_steps >= LONG_RUN
    wanted = choice == "on" or (choice == "auto" and long and has_compiler())
    return compiled() if wanted else EAGER
