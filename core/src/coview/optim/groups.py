"""Which parameters an optimiser treats how: groups, and the rates and decays they follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from coview.components import Component, ParameterGroup, declared
from coview.errors import PluginError, RequestError
from coview.optim.optimizers import OptimizerMaker, OptimizerSettings
from coview.plan import Plan
from coview.records import Step
from coview.schedules import Schedule


def make_optimizer(
    maker: type[OptimizerMaker],
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
        groups: Mapping[str, ParameterGroup] = declared(component, Component, "parameter_groups")()
        _refuse_idle(component, groups)
        for name, parameter in component.named_parameters():
            if parameter.requires_grad:
                matching = (group for pattern, group in groups.items() if fnmatch(name, pattern))
                yield parameter, next(matching, ParameterGroup()), parameter in plain


def _refuse_idle(component: nn.Module, groups: Mapping[str, ParameterGroup]) -> None:
    """Refuse a pattern that no parameter matches: a slip would leave the rest untreated."""
    names = [name for name, _ in component.named_parameters()]
    for pattern in groups:
        if not any(fnmatch(name, pattern) for name in names):
            heads = sorted({name.partition(".")[0] for name in names})
            raise PluginError(
                f"{type(component).__name__}.parameter_groups() names {pattern!r}, which no "
                f"parameter matches. Its parameters start with: {', '.join(heads)}."
            )


def _norm_and_bias(method: nn.Module) -> set[nn.Parameter]:
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    found = set()
    for module in method.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # Attention has an in_proj_bias, a GRU has a bias_ih_l0.
            if isinstance(module, norms) or name.endswith("bias") or name.startswith("bias_"):
                found.add(parameter)
    return found
