"""Choose the device and the precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from coview.distributed import active, local_rank
from coview.errors import RequestError, unknown

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")


def pick_device(text: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names.

    Raises:
        RequestError: there is no such device.
    """
    if text == "auto":
        return _own(torch.device("cuda")) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise RequestError(unknown("device", text, ("auto", "cpu", "cuda", "cuda:N"))) from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(unknown("device", text, ("auto", "cpu", "cuda", "cuda:N")))
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise RequestError(
                f"Device {text!r} is not there: this machine has {count} CUDA device(s). "
                "Use --device auto or cpu."
            )
    return _own(device)


def _own(device: torch.device) -> torch.device:
    """Return the CUDA device with this process's number on the machine, if there are several."""
    if device.type == "cuda" and active():
        return torch.device("cuda", local_rank())
    return device


def pick_precision(text: str, device: torch.device) -> str:
    """Return fp32, tf32, bf16 or fp16; ``auto``: bf16 on a CUDA device that supports it."""
    if text not in PRECISIONS:
        raise RequestError(unknown("precision", text, PRECISIONS))
    if text == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if text in ("fp16", "tf32") and device.type == "cpu":
        raise RequestError(f"Precision {text} needs a CUDA device; on a CPU use fp32 or bf16.")
    return text


def autocasting(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that makes the autocast context in which networks run."""
    if precision in ("fp32", "tf32"):
        return nullcontext
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype=dtype)


def allow_tf32(precision: str, device: torch.device) -> None:
    """Let products of float32 on a GPU have TF32's mantissa of 10 bits, or not.

    With ``fp32`` they may not, not even in convolutions, where torch would by default; with
    ``tf32`` all of them may. The other precisions leave torch's defaults.
    """
    if device.type == "cuda" and precision in ("fp32", "tf32"):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
