"""Optimisers by name, and which parameters they treat how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

import attrs
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from coview.errors import RequestError
from coview.optim.lars import LARC, LARS
from coview.plan import Plan
from coview.records import Step
from coview.schedules import Schedule
from coview.settings import between, ge, gt, one_of, setting

RULES = ("none", "linear", "sqrt")


@attrs.frozen
class ParameterGroup:
    """How a component's parameters of some name pattern differ from the rest.

    A component gives these by a method ``parameter_groups() -> dict[pattern,
    ParameterGroup]``; patterns are matched against names inside the component.

    Attributes:
        fixed_rate: keep the peak learning rate, whatever the schedule says.
        rate_scale: multiply the learning rate.
        weight_decay: in place of the optimiser's.
        adapted: whether layer-wise adaptation (LARS) applies.
    """

    fixed_rate: bool = False
    rate_scale: float = 1.0
    weight_decay: float | None = None
    adapted: bool | None = None


@attrs.frozen
class OptimizerSettings:
    """Settings of every optimiser."""

    lr: float = setting(0.03, "peak learning rate, before the rule", gt(0))
    lr_rule: str = setting(
        "none", "none; linear: x batch / 256; sqrt: x root of the batch", one_of(*RULES)
    )
    weight_decay: float | Schedule = setting(1e-4, "weight decay", ge(0))
    exclude_norm_and_bias: bool = setting(
        False, "whether biases and normalisation layers are not decayed (nor adapted)"
    )

    def peak(self, batch_size: int) -> float:
        """Return the peak learning rate for a global batch."""
        factor = {"none": 1.0, "linear": batch_size / 256, "sqrt": batch_size**0.5}
        return float(self.lr * factor[self.lr_rule])


class MakeSGD:
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


class MakeAdamW:
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


class MakeLARS:
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


class MakeLARC:
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


# Each has a class Settings and ``make(groups, settings, device) -> Optimizer``.
OPTIMIZERS: Mapping[str, type[Any]] = {
    "sgd": MakeSGD,
    "adamw": MakeAdamW,
    "lars": MakeLARS,
    "larc": MakeLARC,
}


def make_optimizer(
    maker: type[Any],
    settings: OptimizerSettings,
    method: nn.Module,
    plan: Plan,
    device: torch.device,
) -> Optimizer:
    """Return an optimiser of everything in ``method`` that takes a gradient.

    Every group has keys ``fixed_rate`` and ``rate_scale``, which
    :func:`set_rate` reads, and ``scheduled_decay``, which
    :func:`set_weight_decay` reads.
    """
    peak = settings.peak(plan.batch_size)
    first_decay = _decay_at(settings, Step())
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for parameter, treatment, plain in _treatments(method):
        excluded = settings.exclude_norm_and_bias and plain
        decay = 0.0 if excluded else first_decay
        decay = decay if treatment.weight_decay is None else treatment.weight_decay
        scheduled = not excluded and treatment.weight_decay is None
        adapted = not excluded if treatment.adapted is None else treatment.adapted
        key = (decay, scheduled, adapted, treatment.fixed_rate, treatment.rate_scale)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "lr": peak * treatment.rate_scale,
                "weight_decay": decay,
                "scheduled_decay": scheduled,
                "adapted": adapted,
                "fixed_rate": treatment.fixed_rate,
                "rate_scale": treatment.rate_scale,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise RequestError("Nothing in this method takes a gradient; there is nothing to train.")
    optimizer: Optimizer = maker.make(list(groups.values()), settings, device)
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group that follows the schedule its learning rate."""
    for group in optimizer.param_groups:
        if not group["fixed_rate"]:
            group["lr"] = rate * group["rate_scale"]


def set_weight_decay(optimizer: Optimizer, settings: OptimizerSettings, step: Step) -> None:
    """Give every group that follows it the scheduled weight decay, if there is a schedule."""
    if isinstance(settings.weight_decay, Schedule):
        value = _decay_at(settings, step)
        for group in optimizer.param_groups:
            if group["scheduled_decay"]:
                group["weight_decay"] = value


def _decay_at(settings: OptimizerSettings, step: Step) -> float:
    decay = settings.weight_decay
    return decay.at(step) if isinstance(decay, Schedule) else decay


def _treatments(method: nn.Module) -> Iterator[tuple[nn.Parameter, ParameterGroup, bool]]:
    """Yield each trainable parameter, its treatment, and whether it is a norm's or a bias."""
    plain = _norm_and_bias(method)
    components: Iterable[nn.Module] = method.get_submodule("components").children()
    for component in components:
        declared: Mapping[str, ParameterGroup] = {}
        if hasattr(component, "parameter_groups"):
            declared = component.parameter_groups()  # type: ignore[operator]
        for name, parameter in component.named_parameters():
            if parameter.requires_grad:
                matching = (group for pattern, group in declared.items() if fnmatch(name, pattern))
                yield parameter, next(matching, ParameterGroup()), parameter in plain


def _norm_and_bias(method: nn.Module) -> set[nn.Parameter]:
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    found = set()
    for module in method.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # Attention has an in_proj_bias, a GRU a bias_ih_l0.
            if isinstance(module, norms) or name.endswith("bias") or name.startswith("bias_"):
                found.add(parameter)
    return found


def _can_fuse(device: torch.device) -> bool | None:
    return True if device.type in ("cpu", "cuda") else None
