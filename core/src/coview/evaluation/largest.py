"""Where the largest of many numbers are, with few of them compared."""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 4
"""Of so many numbers only the largest is compared, until few enough are left to compare all."""
INTEGERS = {
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
"""What has the same bits: positive numbers are ordered as those are, which a CPU does faster."""


def largest(values: Tensor, count: int, *, in_order: bool = False) -> tuple[Tensor, Tensor]:
    """Return the largest of each row (Q, count) and where they are.

    Args:
        values: (Q, N), without NaN.
        count: at most N are returned.
        in_order: largest first; in no order otherwise.
    """
    if values.device.type == "cpu" and values.dtype in INTEGERS:
        found, places = _search(values.view(INTEGERS[values.dtype]), count, in_order)
        if found.numel() and found.amin() > 0:
            return found.view(values.dtype), places
    return _search(values, count, in_order)


def _search(values: Tensor, count: int, in_order: bool) -> tuple[Tensor, Tensor]:
    """Return the same: they are in the groups whose largest numbers are the largest."""
    width = values.shape[1]
    step = width // GROUP
    if step < 2 * count:
        return _compared(values, min(count, width), in_order)
    # A group's members are a step apart, so that all groups are compared side by side.
    even = GROUP * step
    groups = values[:, :even].unflatten(1, (GROUP, step))
    chosen = _search(groups.amax(dim=1), count, False)[1]
    wanted = chosen.unsqueeze(1).expand(-1, GROUP, -1)
    members = torch.cat([groups.gather(2, wanted).flatten(1), values[:, even:]], dim=1)
    found, which = _compared(members, count, in_order)
    member = which // count
    if even == width:
        return found, chosen.gather(1, which - member * count) + member * step
    # What is left over is in no group.
    inside = chosen.gather(1, which % count) + member * step
    return found, torch.where(member < GROUP, inside, which + (even - GROUP * count))


def _compared(values: Tensor, count: int, in_order: bool) -> tuple[Tensor, Tensor]:
    found, places = values.topk(count, dim=1, sorted=in_order)
    return found, places
