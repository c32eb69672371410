"""Clip gradients before the optimiser's step."""

from __future__ import annotations

import torch


def clip_each(module: torch.nn.Module, longest: float) -> None:
    """Clip each parameter's gradient to a norm of at most ``longest``, in place."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return
    lengths = torch.stack(list(torch._foreach_norm(gradients)))
    factors = (longest / (lengths + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
