"""Numbers on a device, copied there only once.

A copy from the host's ordinary memory (``torch.tensor(numbers, device=...)``,
``new_tensor``, an index that is a list) waits until the device has finished all
its work, in every step again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def constant(
    values: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return numbers as a tensor, which is cached and so must not be written to.

    Args:
        values: numbers, or rows of numbers.
        device: device of the tensor.
        dtype: number type of the tensor.
    """
    if torch.compiler.is_compiling():
        return torch.tensor(values, device=device, dtype=dtype)  # a part of the graph
    return _kept(_frozen(values), device, dtype)


def like(values: Sequence[Any], tensor: Tensor) -> Tensor:
    """Return numbers as a :func:`constant` on another tensor's device and of its type."""
    return constant(values, tensor.device, tensor.dtype)


@functools.lru_cache(maxsize=1024)
def _kept(values: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in it could not be used in training later
        return torch.tensor(values, device=device, dtype=dtype)


def _frozen(values: Any) -> Any:
    return tuple(map(_frozen, values)) if isinstance(values, Sequence) else values
