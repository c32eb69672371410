"""Optimisers by name, and how they treat different parameters."""

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
    """Special treatment of a component's parameters whose names match a pattern.

    A component declares it in a method ``parameter_groups() -> dict[pattern,
    ParameterGroup]``; patterns are matched against names inside the component.

    Attributes:
        fixed_rate: keep the peak learning rate, whatever the schedule says.
        rate_scale: factor of the learning rate.
        weight_decay: replaces the optimiser's weight decay; None: the optimiser's.
        adapted: whether layer-wise adaptation (LARS) applies; None: unless the
            optimiser excludes the parameter.
    """

    fixed_rate: bool = False
    rate_scale: float = 1.0
    weight_decay: float | None = None
    adapted: bool | None = None


@attrs.frozen
class OptimizerSettings:
    """Settings of every optimiser."""

    lr: float = setting(0.03, "peak learning rate, before lr_rule is applied", gt(0))
    lr_rule: str = setting(
        "none",
        "scaling of lr: none, linear (x batch size / 256) or sqrt (x square root of batch size)",
        one_of(*RULES),
    )
    weight_decay: float | Schedule = setting(1e-4, "weight decay", ge(0))
    exclude_norm_and_bias: bool = setting(
        False, "exclude biases and normalisation layers from weight decay (and adaptation)"
    )

    def peak(self, batch_size: int) -> float:
        """Return the peak learning rate for a global batch of this size."""
        factor = {"none": 1.0, "linear": batch_size / 256, "sqrt": batch_size**0.5}
        return float(self.lr * factor[self.lr_rule])


class MakeSGD:
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


class MakeAdamW:
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


class MakeLARS:
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


class MakeLARC:
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


# Each has a class ``Settings`` and ``make(groups, settings, device) -> Optimizer``.
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
    """Return an optimiser of all parameters in ``method`` that require a gradient.

    Every group has the keys ``fixed_rate`` and ``rate_scale``, which
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
        raise RequestError(
            "There is nothing to train: no parameter of this method requires a gradient."
        )
    optimizer: Optimizer = maker.make(list(groups.values()), settings, device)
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every group that follows the schedule."""
    for group in optimizer.param_groups:
        if not group["fixed_rate"]:
            group["lr"] = rate * group["rate_scale"]


def set_weight_decay(optimizer: Optimizer, settings: OptimizerSettings, step: Step) -> None:
    """Set the weight decay of every group that follows its schedule, if there is one."""
    if isinstance(settings.weight_decay, Schedule):
        value = _decay_at(settings, step)
        for group in optimizer.param_groups:
            if group["scheduled_decay"]:
                group["weight_decay"] = value


def _decay_at(settings: OptimizerSettings, step: Step) -> float:
    decay = settings.weight_decay
    return decay.at(step) if isinstance(decay, Schedule) else decay


def _treatments(method: nn.Module) -> Iterator[tuple[nn.Parameter, ParameterGroup, bool]]:
    """Yield each trainable parameter, its treatment, and whether it is a bias or in a norm."""
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
            # Attention has an in_proj_bias, a GRU has a bias_ih_l0.
            if isinstance(module, norms) or name.endswith("bias") or name.startswith("bias_"):
                found.add(parameter)
    return found


def _can_fuse(device: torch.device) -> bool | None:
    return True if device.type in ("cpu", "cuda") else None
