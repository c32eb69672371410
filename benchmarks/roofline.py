"""How many images a second a device allows at most: operations and bytes of the bare step."""

from argparse import Namespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import runner


def under_the_roof(bare: runner.Once, batch: int, rate: float) -> dict[str, Any]:
    """Return what the bare step asks for an image, and the images a second that this allows.

    ``rate``, the images a second that were measured, is put beside the lower bound.
    """
    with FlopCounterMode(display=False) as counter:
        bare()
    flops, traffic = counter.get_total_flops() / batch, traffic_of(bare) / batch
    found = {
        "GFLOP an image": round(flops / 1e9, 3),
        "MB an image, unfused": round(traffic / 1e6, 1),
    }
    peak = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if peak is None:
        return found
    compute, memory = peak.flops / flops, peak.bandwidth / traffic
    found |= {"compute bound images/s": round(compute), "traffic bound images/s": round(memory)}
    return {**found, "of the lower bound": f"{rate / min(compute, memory):.0%}"}


def peak_of(name: str) -> Namespace | None:
    """Return the peak of a device, by its name; None if it is none of these (NVL is another)."""
    known = ((words.split(), peak) for words, peak in runner.DESIGN["roofline"].items())
    found = [Namespace(**peak) for words, peak in known if all(word in name for word in words)]
    return found[0] if found and "NVL" not in name else None


class Traffic(TorchDispatchMode):
    """Counts bytes; a view of a tensor moves none."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return result


def traffic_of(function: runner.Once) -> int:
    """Return the bytes that its operations read and write, one by one."""
    with Traffic() as counting:
        function()
    return counting.total


def measured_peaks(device: str) -> dict[str, Any]:
    """Return what this very device reaches: a large product's rate, a copy's bandwidth."""
    if device != "cuda":
        return {}
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    b, c = torch.empty(2, 1 << 30, dtype=torch.uint8, device=device)
    seconds = runner.alternate({"product": lambda: a @ a, "copy": lambda: b.copy_(c)}, 15)
    product, copy = runner.medians(seconds).values()
    reached = {"bfloat16 product, TFLOP/s": round(2 * 8192**3 / product / 1e12)}
    return {**reached, "copy, TB/s": round(2 * (1 << 30) / copy / 1e12, 2)}
