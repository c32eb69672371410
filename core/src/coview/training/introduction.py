"""What is being run, in words, before it runs."""

from __future__ import annotations

from typing import Any

import torch


def introduction(run: Any) -> list[str]:
    """Return sentences on a run's data, network, steps and rate.

    Args:
        run: a :class:`coview.training.run.Run` that is built.
    """
    return [
        f"training {run.resolved.recipe.name or 'a recipe'} on {run.data.name}: "
        f"{len(run.data.train)} images, {run.last_step - run.step} steps on {_device(run)} "
        f"({run.settings.precision}), into {run.path}",
        f"network: {run.resolved.part('backbone').name}, {_count(run.method.backbone())} "
        f"parameters ({_count(run.method)} are trained with its heads), {_views(run)}",
        f"batch {run.plan.batch_size}: {run.plan.steps_per_epoch} steps an epoch, "
        f"{run.resolved.training.epochs} epochs; {_rate(run)}, "
        f"{run.resolved.part('schedule').name} schedule",
    ]


def _device(run: Any) -> str:
    if run.device.type != "cpu":
        return str(run.device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"


def _count(module: Any) -> str:
    """Return the number of a module's trained parameters, to three digits."""
    number = sum(p.numel() for p in module.parameters() if p.requires_grad)
    for size, word in ((1_000_000, " million"), (1_000, " thousand")):
        if number >= size:
            return f"{number / size:.3g}{word}"
    return str(number)


def _views(run: Any) -> str:
    """Return how many views there are of an image and of which sizes: ``2 views of 32 x 32``."""
    sizes = run.method.components["views"].layout.sizes
    counted = {size: sizes.count(size) for size in sizes}
    return " and ".join(
        f"{count} view{'s' if count > 1 else ''} of {height} x {width}"
        for (height, width), count in counted.items()
    )


def _rate(run: Any) -> str:
    optimizer = run.resolved.part("optimizer")
    rule = getattr(optimizer.settings, "lr_rule", "none")
    by_rule = "" if rule == "none" else f" ({optimizer.settings.lr:g} by the {rule} rule)"
    return f"{optimizer.name}, learning rate {run.peak:.3g}{by_rule}"
