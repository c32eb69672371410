"""The core's optimisers, by name."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch.optim import SGD, AdamW, Optimizer

from coview.components import ParameterGroup
from coview.optim.lars import LARC, LARS
from coview.schedules import RATE_RULES, Schedule, rate_scale
from coview.settings import between, ge, gt, one_of, setting

__all__ = [
    "MakeAdamW",
    "MakeLARC",
    "MakeLARS",
    "MakeSGD",
    "OptimizerMaker",
    "OptimizerSettings",
    "ParameterGroup",
]


@attrs.frozen
class OptimizerSettings:
    """Settings of every optimiser."""

    lr: float = setting(0.03, "peak learning rate, before the rule", gt(0))
    lr_rule: str = setting(
        "none", "none; linear: x batch / 256; sqrt: x root of the batch", one_of(*RATE_RULES)
    )
    weight_decay: float | Schedule = setting(1e-4, "weight decay", ge(0))
    exclude_norm_and_bias: bool = setting(
        False, "whether biases and normalisation layers are not decayed (nor adapted)"
    )

    def peak(self, batch_size: int) -> float:
        """Return the peak learning rate for a global batch."""
        return self.lr * rate_scale(self.lr_rule, batch_size)


class OptimizerMaker:
    """An optimiser by name (group ``coview.optimizers``).

    ``Settings`` derives from :class:`OptimizerSettings`.
    """

    Settings: ClassVar[type]

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Any, device: torch.device) -> Optimizer:
        """Return the optimiser of these parameter groups.

        Each group has ``params``, ``lr``, ``weight_decay`` and ``adapted`` (whether
        layer-wise adaptation applies), and keys of coview's own, which must be kept.
        """
        raise NotImplementedError


class MakeSGD(OptimizerMaker):
    """Stochastic gradient descent with momentum."""

    @attrs.frozen
    class Settings(OptimizerSettings):
        """torch's."""

        momentum: float = setting(0.9, "momentum", between(0, 1))
        nesterov: bool = setting(False, "Nesterov's momentum")

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Settings, device: torch.device) -> Optimizer:
        """Return torch's SGD, fused."""
        momentum, nesterov = settings.momentum, settings.nesterov
        made = SGD(groups, momentum=momentum, nesterov=nesterov, fused=_can_fuse(device))
        for group in made.param_groups if momentum else ():
            # A parameter that is frozen for the first steps has no buffer when it starts to
            # move, which the fused form cannot take beside others that have one.
            for parameter in group["params"]:
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return made


class MakeAdamW(OptimizerMaker):
    """Adam with decoupled weight decay."""

    @attrs.frozen
    class Settings(OptimizerSettings):
        """torch's."""

        beta1: float = setting(0.9, "decay of the first moment", between(0, 1))
        beta2: float = setting(0.999, "decay of the second moment", between(0, 1))

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Settings, device: torch.device) -> Optimizer:
        """Return torch's AdamW, fused."""
        betas = (settings.beta1, settings.beta2)
        return AdamW(groups, betas=betas, fused=_can_fuse(device))


class MakeLARS(OptimizerMaker):
    """Layer-wise adaptive rates (You et al. 2017, arXiv:1708.03888)."""

    @attrs.frozen
    class Settings(OptimizerSettings):
        """SimCLR's and BYOL's."""

        momentum: float = setting(0.9, "momentum", between(0, 1))
        eta: float = setting(1e-3, "trust coefficient", gt(0))
        rate_in_momentum: bool = setting(
            True, "whether the learning rate enters the momentum buffer (SimCLR) or not (BYOL)"
        )
        clip: bool = setting(False, "never let adaptation raise the rate above the schedule's")
        exclude_norm_and_bias: bool = setting(
            True, "whether biases and normalisation layers are not decayed (nor adapted)"
        )

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Settings, device: torch.device) -> Optimizer:
        """Return our LARS."""
        return LARS(
            groups,
            momentum=settings.momentum,
            eta=settings.eta,
            rate_in_momentum=settings.rate_in_momentum,
            clip=settings.clip,
        )


class MakeLARC(OptimizerMaker):
    """Layer-wise adaptive rate control (apex's; SwAV's)."""

    @attrs.frozen
    class Settings(OptimizerSettings):
        """SwAV's: every tensor is decayed and adapted, biases and norms too."""

        momentum: float = setting(0.9, "momentum", between(0, 1))
        eta: float = setting(1e-3, "trust coefficient", gt(0))
        clip: bool = setting(False, "never let adaptation raise the rate above the schedule's")

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Settings, device: torch.device) -> Optimizer:
        """Return our LARC."""
        return LARC(groups, momentum=settings.momentum, eta=settings.eta, clip=settings.clip)


def _can_fuse(device: torch.device) -> bool | None:
    return True if device.type in ("cpu", "cuda") else None
