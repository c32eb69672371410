"""How many images a second a device allows at most: operations and bytes of the bare step.

gpu.py puts these beside what was measured. Operations are counted by torch's
counter, on the very model that is timed. Bytes are those that its operations read
and write one by one, as if nothing stayed on the chip and nothing was fused: a
compiled network moves fewer and may pass that bound; the first bound nothing can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import runner


@attrs.frozen
class Peak:
    """What a device could do at most: operations a second, bytes a second, and who says so."""

    flops: float
    bandwidth: float
    source: str


def under_the_roof(bare: Callable[[], Any], batch: int, rate: float) -> dict[str, Any]:
    """Return what the bare step asks for an image, and the images a second that this allows.

    Args:
        bare: the step.
        batch: its images.
        rate: images a second that were measured, for their share of the lower bound.
    """
    with FlopCounterMode(display=False) as counter:
        bare()
    flops, traffic = counter.get_total_flops(), traffic_of(bare)
    found = {
        "GFLOP an image": round(flops / batch / 1e9, 3),
        "MB an image, unfused": round(traffic / batch / 1e6, 1),
    }
    peak = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if peak is None:
        return found
    compute, memory = batch * peak.flops / flops, batch * peak.bandwidth / traffic
    found |= {"compute bound images/s": round(compute), "traffic bound images/s": round(memory)}
    return {**found, "of the lower bound": f"{rate / min(compute, memory):.0%}"}


def peak_of(name: str) -> Peak | None:
    """Return the peak of a device, by its name; None if it is none of these (NVL is another)."""
    for peak in [] if "NVL" in name else runner.DESIGN["roofline"]:
        if all(word in name for word in peak["words"]):
            return Peak(peak["flops"], peak["bandwidth"], peak["source"])
    return None


def traffic_of(function: Callable[[], Any]) -> int:
    """Return the bytes that its operations read and write, one by one."""
    with Traffic() as counting:
        function()
    return counting.total


class Traffic(TorchDispatchMode):
    """Counts bytes; a view of a tensor moves none."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return result


def measured_peaks(device: str) -> dict[str, Any]:
    """Return what this very device reaches: a large product's rate, a copy's bandwidth."""
    if device != "cuda":
        return {}
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    b, c = torch.empty(2, 1 << 30, dtype=torch.uint8, device=device)
    seconds = runner.alternate({"product": lambda: a @ a, "copy": lambda: b.copy_(c)}, 15)
    median = runner.medians(seconds)
    return {
        "bfloat16 product, TFLOP/s": round(2 * 8192**3 / median["product"] / 1e12),
        "copy, TB/s": round(2 * (1 << 30) / median["copy"] / 1e12, 2),
    }
