"""The standard views in a few Triton kernels: ``views.backend = triton``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from coview.errors import RequestError
from coview.views.backends.fused.fusing import FusedBackend
from coview.views.chain import Chain

__all__ = ["TritonBackend"]


class TritonBackend(FusedBackend):
    """Draws what the fused backend draws, and paints it with kernels of its own on a GPU."""

    @classmethod
    def chain(
        cls, descriptions: Sequence[Any], last: Any, compile: bool | None, dtype: torch.dtype
    ) -> Chain:
        """Return the chain; on a CPU it is the fused backend's.

        Raises:
            RequestError: Triton is not installed.
        """
        if importlib.util.find_spec("triton") is None:
            raise RequestError(
                "views.backend = triton needs Triton, which is not installed: "
                "pip install triton (on Linux), or use views.backend = fused."
            )
        from coview_triton.views import Painted  # it compiles nothing, but imports Triton

        cls.kind = Painted
        return super().chain(descriptions, last, compile, dtype)
