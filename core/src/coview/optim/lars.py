"""LARS as the papers use it; libraries lack this update (timm's follows LARC)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Momentum SGD whose step for each tensor is scaled to the norm of its weights.

    For an adapted tensor w with gradient g: u = g + weight_decay w, trust =
    eta |w| / |u| (1 where either is 0). With ``rate_in_momentum`` (SimCLR's
    released code): v <- momentum v + lr trust u, w <- w - v. Without (BYOL's and
    MoCo v3's): v <- momentum v + trust u, w <- w - lr v. The two agree while
    the learning rate is constant.

    Args:
        groups: parameter groups with ``lr``, ``weight_decay`` and ``adapted``.
        momentum: decay of the momentum buffer.
        eta: the trust coefficient.
        rate_in_momentum: see above.
        clip: never let the rate exceed the schedule's: trust <- min(trust / lr, 1)
            (the "clipping" of LARC).
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        momentum: float = 0.9,
        eta: float = 1e-3,
        rate_in_momentum: bool = True,
        clip: bool = False,
    ) -> None:
        defaults = {
            "lr": 1.0,
            "weight_decay": 0.0,
            "adapted": True,
            "momentum": momentum,
            "eta": eta,
            "rate_in_momentum": rate_in_momentum,
            "clip": clip,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; everything stays on the device."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._step(group, weights)
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        rate = group["lr"]
        gradients = [w.grad for w in weights if w.grad is not None]
        updates = self._updates(group, weights, gradients)
        buffers = [self._buffer(w) for w in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        inside = rate if group["rate_in_momentum"] else 1.0
        torch._foreach_add_(buffers, updates, alpha=inside)
        torch._foreach_add_(weights, buffers, alpha=-1.0 if group["rate_in_momentum"] else -rate)

    def _updates(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]
    ) -> list[Tensor]:
        """Return the decayed and adapted gradients that enter the momentum buffers."""
        updates = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["adapted"]:
            torch._foreach_mul_(updates, _trust(weights, updates, group))
        return updates

    def _buffer(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


class LARC(LARS):
    """Momentum SGD with apex's layer-wise rates, as SwAV's released code uses them.

    trust = eta |w| / (|g| + weight_decay |w| + 1e-8) scales g + weight_decay w:
    the two norms are added, where LARS takes the norm of the sum. If either norm
    is 0, the gradient is used unchanged, without weight decay. The learning rate
    stays outside the momentum buffer.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        momentum: float = 0.9,
        eta: float = 1e-3,
        clip: bool = False,
    ) -> None:
        super().__init__(groups, momentum, eta, rate_in_momentum=False, clip=clip)

    def _updates(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]
    ) -> list[Tensor]:
        decay = group["weight_decay"]
        if not group["adapted"]:
            return list(torch._foreach_add(gradients, weights, alpha=decay))
        lengths = torch.stack(list(torch._foreach_norm(weights)))
        slopes = torch.stack(list(torch._foreach_norm(gradients)))
        trust = _clipped(group["eta"] * lengths / (slopes + decay * lengths + 1e-8), group)
        active = (lengths > 0) & (slopes > 0)
        updates = list(
            torch._foreach_mul(weights, list((active.to(lengths.dtype) * decay).unbind()))
        )
        torch._foreach_add_(updates, gradients)
        torch._foreach_mul_(updates, list(torch.where(active, trust, 1.0).unbind()))
        return updates


def _trust(weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    lengths, steps = torch.stack(torch._foreach_norm([*weights, *updates])).chunk(2)
    trust = _clipped(group["eta"] * lengths / steps, group)
    return list(torch.where(torch.minimum(lengths, steps) > 0, trust, 1.0).unbind())


def _clipped(trust: Tensor, group: dict[str, Any]) -> Tensor:
    if group["clip"] and group["lr"] > 0:
        trust = (trust / group["lr"]).clamp(max=1.0)
    return trust
