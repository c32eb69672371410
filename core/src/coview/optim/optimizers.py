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

    lr: float = setting(0.03, "peak learning rate, before lr_rule is applied", gt(0))
    lr_rule: str = setting(
        "none",
        "scaling of lr: none, linear (x batch size / 256) or sqrt (x square root of batch size)",
        one_of(*RATE_RULES),
    )
    weight_decay: float | Schedule = setting(1e-4, "weight decay", ge(0))
    exclude_norm_and_bias: bool = setting(
        False, "exclude biases and normalisation layers from weight decay (and adaptation)"
    )

    def peak(self, batch_size: int) -> float:
        """Return the peak learning rate for a global batch of this size."""
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
        """Settings of torch's SGD."""

        momentum: float = setting(0.9, "momentum", between(0, 1))
        nesterov: bool = setting(False, "use Nesterov's momentum")

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Settings, device: torch.device) -> Optimizer:
        """Return torch's SGD, fused."""
        momentum, nesterov = settings.momentum, settings.nesterov
        made = SGD(groups, momentum=momentum, nesterov=nesterov, fused=_can_fuse(device))
        for group in made.param_groups if momentum else ():
            # A parameter frozen for the first steps would have no buffer when it starts to
            # move, and the fused form cannot mix such parameters with others.
            for parameter in group["params"]:
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return made


class MakeAdamW(OptimizerMaker):
    """Adam with decoupled weight decay."""

    @attrs.frozen
    class Settings(OptimizerSettings):
        """Settings of torch's AdamW."""

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
        """SimCLR's and BYOL's settings."""

        momentum: float = setting(0.9, "momentum", between(0, 1))
        eta: float = setting(1e-3, "trust coefficient", gt(0))
        rate_in_momentum: bool = setting(
            True, "apply the learning rate inside the momentum buffer (SimCLR), not outside (BYOL)"
        )
        clip: bool = setting(False, "never let adaptation raise the rate above the schedule's")
        exclude_norm_and_bias: bool = setting(
            True, "exclude biases and normalisation layers from weight decay (and adaptation)"
        )

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Settings, device: torch.device) -> Optimizer:
        """Return coview's LARS."""
        return LARS(
            groups,
            momentum=settings.momentum,
            eta=settings.eta,
            rate_in_momentum=settings.rate_in_momentum,
            clip=settings.clip,
        )


class MakeLARC(OptimizerMaker):
    """Layer-wise adaptive rate control (LARC), as in apex and SwAV."""

    @attrs.frozen
    class Settings(OptimizerSettings):
        """SwAV's settings: every tensor is decayed and adapted, including biases and norms."""

        momentum: float = setting(0.9, "momentum", between(0, 1))
        eta: float = setting(1e-3, "trust coefficient", gt(0))
        clip: bool = setting(False, "never let adaptation raise the rate above the schedule's")

    @staticmethod
    def make(groups: list[dict[str, Any]], settings: Settings, device: torch.device) -> Optimizer:
        """Return coview's LARC."""
        return LARC(groups, momentum=settings.momentum, eta=settings.eta, clip=settings.clip)


def _can_fuse(device: torch.device) -> bool | None:
    return True if device.type in ("cpu", "cuda") else None
