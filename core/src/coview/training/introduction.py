"""What is being run, in words, before it runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from coview.components import ViewsComponent, declared
from coview.recipes.tables import SMALL_IMAGE, SMALL_PRESETS
from coview.terminal import shown
from coview.weights.elsewhere import in_stock
from coview.weights.exported import export

LESS_WARMUP = "train for more epochs, or choose a shorter warm-up (--warmup)"
LONG = 1_800
"""Seconds of training on a processor from which on a smaller network is suggested."""


FOR_OTHERS = "for weights that load there, train with --backbone resnet18"


def own_to_coview(run: Any) -> bool:
    """Return whether timm and torchvision lack a run's network, which is not the user's own."""
    card = run.card
    return not card.given and not in_stock(export(run.method, card).card)


def all_warmup(run: Any) -> bool:
    """Return whether the learning rate still rises in a run's last step."""
    last, rate = run.last_step, run.schedule.rate
    return last > 1 and bool(rate(run.peak, last - 1) > rate(run.peak, last - 2))


def chosen(run: Any) -> list[str]:
    """Return what was chosen for the user: the preset, the images held out, and other notes.

    Args:
        run: a :class:`coview.training.run.Run` that is built.
    """
    notes = [f"note: {notice}" for notice in run.resolved.notices]
    return [f"preset: {run.settings.preset or 'none'}", *notes]


def introduction(run: Any) -> list[str]:
    """Return sentences on a run's data, network, steps and rate.

    Args:
        run: a :class:`coview.training.run.Run` that is built.
    """
    lines = [
        f"training {run.resolved.recipe.name or 'a recipe'} on {shown(run.data.name)}: "
        f"{len(run.data.train)} images, {run.last_step - run.step} steps on {_device(run)} "
        f"({run.settings.precision}), into {shown(run.path)}",
        f"network: {run.card.backbone}, {_count(run.method.encoder.backbone())} "
        f"parameters ({_count(run.method)} are trained with its heads), {_views(run)}",
        f"batch {run.plan.batch_size}: {_steps(run.plan.steps_per_epoch)} an epoch, "
        f"{run.resolved.training.epochs} epochs; {_rate(run)}, "
        f"{run.resolved.part('schedule').name} schedule",
    ]
    if own_to_coview(run):
        lines.append(f"timm and torchvision have no {shown(run.card.backbone)}: {FOR_OTHERS}")
    if run.estimate is not None:
        lines.append(
            f"estimate: {run.estimate}, to which heads, views and reading add{_faster(run)}"
        )
        if run.estimate.crowded:
            lines.append(run.estimate.crowded)
    if all_warmup(run):
        lines.append(f"all {run.last_step} steps are warm-up: {LESS_WARMUP}")
    return lines


def _faster(run: Any) -> str:
    """Return what trains within minutes on a processor, if this run takes long on one."""
    resolved = run.resolved
    if run.device.type != "cpu" or run.estimate.seconds < LONG:
        return ""
    smaller = next((name for name in reversed(SMALL_PRESETS) if name in resolved.presets), None)
    if smaller is None:
        return "; a GPU would help, or fewer --epochs"
    if smaller == resolved.preset:
        return "; fewer --epochs take less"  # too small a network to keep a GPU busy
    return f"; a small network at {SMALL_IMAGE} pixels trains in minutes: --preset {smaller}"


def _device(run: Any) -> str:
    if run.device.type != "cpu":
        return str(run.device)
    threads = run.settings.threads or torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


def _count(module: Any) -> str:
    """Return the number of a module's trained parameters, to three digits."""
    number = sum(p.numel() for p in module.parameters() if p.requires_grad)
    for size, word in ((1_000_000, " million"), (1_000, " thousand")):
        if number >= size:
            return f"{number / size:.3g}{word}"
    return str(number)


def _views(run: Any) -> str:
    """Return how many views there are of an image and of which sizes: ``2 views of 32 x 32``."""
    views = run.method.components["views"]
    signals = declared(views, ViewsComponent, "takes") == "signals"
    counted = Counter(views.layout.sizes)
    return " and ".join(
        f"{count} view{'s' if count > 1 else ''} of "
        + (f"{width} samples" if signals else f"{height} x {width}")
        for (height, width), count in counted.items()
    )


def _rate(run: Any) -> str:
    optimizer = run.resolved.part("optimizer")
    rule = getattr(optimizer.settings, "lr_rule", "none")
    by_rule = "" if rule == "none" else f" ({optimizer.settings.lr:g} by the {rule} rule)"
    now = (
        f", {run.schedule.rate(run.peak, run.step):.3g} in the next step"
        if run.step and run.changed
        else ""
    )
    return f"{optimizer.name}, learning rate {run.peak:.3g}{by_rule}{now}"
