"""A resolved request built: data loaded, method and optimiser made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from coview.data.base import ImageData, Source
from coview.data.loader import Batches
from coview.distributed import active, from_first, is_first, rank, wait, world_size
from coview.errors import RequestError
from coview.evaluation.published import protocols_of
from coview.method.module import Method, build_method
from coview.nn.backbones import from_module
from coview.nn.compile import require_compiler
from coview.nn.encoder import Encoder
from coview.nn.sync_norm import synchronise
from coview.optim.optimizers import make_optimizer
from coview.plan import Plan
from coview.recipes.recipe import Use
from coview.recipes.resolve import GIVEN, Resolved
from coview.training.device import autocasting
from coview.training.directory import default_directory, new_directory
from coview.training.initial import initialise
from coview.training.request import Request
from coview.training.run import Options, Run
from coview.views import TransformViews
from coview.weights.exported import parts_of


def assemble(
    request: Request, resolved: Resolved, source: Source, options: Options, out: Path | None
) -> Run:
    """Load the data and build everything that a run needs.

    Raises:
        RequestError: the parts do not fit together, or not to these processes.
    """
    if not is_first():
        wait()  # the first process fetches what is missing
    data = source.load(resolved.data, options.workers)
    if is_first():
        wait()
    wait()  # loading may take longer than the run's timeout
    batches = Batches(
        data.train,
        resolved.training.batch_size,
        options.seed,
        options.device,
        options.workers,
        rank(),
        world_size(),
    )
    _check_micro_batches(resolved)
    notices: list[str] = [*resolved.notices, *data.notes]
    plan = _plan(resolved, data, batches.steps_per_epoch, notices.append)
    torch.manual_seed(options.seed)
    resolved, objects = _objects(request, resolved, plan)
    method = build_method(resolved, plan, objects)
    initialise(method, request.init, notices.append)
    method.to(options.device)
    synchronise(method)
    method.autocast = autocasting(options.precision, options.device)
    if options.compile:
        _compile(method)
    settings = resolved.part("optimizer").settings
    maker = resolved.part("optimizer").factory
    schedule = resolved.part("schedule")
    path = from_first(out or default_directory(resolved.recipe.name, data.name))
    if out is None and is_first():
        new_directory(path)
    return Run(
        path=path,
        resolved=attrs.evolve(resolved, notices=tuple(dict.fromkeys(notices))),
        plan=plan,
        data=data,
        method=method,
        module=_wrapped(method, options.device),
        optimizer=make_optimizer(maker, settings, method, plan, options.device),
        schedule=schedule.factory(schedule.settings, plan),
        scaler=torch.amp.GradScaler(options.device.type, enabled=options.precision == "fp16"),
        batches=batches,
        options=options,
        peak=settings.peak(plan.batch_size),
        backbone_meta=_backbone_meta(resolved, plan, request.backbone is not None),
    )


def _compile(method: nn.Module) -> None:
    """Compile trunk and heads of every encoder, the targets' copies too, for fixed shapes."""
    require_compiler("--compile")
    for encoder in method.modules():
        if isinstance(encoder, Encoder):
            for part in (encoder.trunk, encoder.projector, encoder.predictor):
                if part is not None:
                    part.compile(dynamic=False)


def _wrapped(method: Method, device: torch.device) -> nn.Module:
    if not active():
        return method
    # Buffers are kept equal by being fed the same rows; broadcasting would hide it if not.
    devices = [device] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {option: False}
    # Nor must those be broadcast at the start that are each process's own.
    own = [
        f"components.{key}.{name}"
        for key, component in method.components.items()
        for name in getattr(component, "own_buffers", ())
    ]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(method, own)
    return DistributedDataParallel(method, device_ids=devices, **settings)


def _plan(
    resolved: Resolved, data: ImageData, steps_per_epoch: int, notice: Callable[[str], None]
) -> Plan:
    return Plan(
        dataset_size=len(data.train),
        channels=data.channels,
        image_size=data.size,
        mean=data.mean,
        std=data.std,
        batch_size=resolved.training.batch_size,
        world_size=world_size(),
        accumulate=resolved.training.accumulate,
        steps_per_epoch=steps_per_epoch,
        total_steps=resolved.training.epochs * steps_per_epoch,
        notice=notice,
    )


def _check_micro_batches(resolved: Resolved) -> None:
    batch, parts = resolved.training.batch_size, resolved.training.accumulate
    if batch % (parts * world_size()) or batch // (parts * world_size()) < 2:
        raise RequestError(
            f"accumulate = {parts} must divide the batch of {batch} into equal parts of 2 or more."
        )


def _objects(request: Request, resolved: Resolved, plan: Plan) -> tuple[Resolved, dict[str, Any]]:
    """Return ready modules that stand in for names, and the recipe saying so."""
    objects: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    if request.views is not None:
        objects["views"] = TransformViews(request.views, plan)
        changes["views"] = Use(f"{GIVEN}{type(request.views).__name__}")
    if request.backbone is not None:
        objects["backbone"] = from_module(request.backbone, plan.channels, plan.image_size)
        changes["backbone"] = Use(f"{GIVEN}{type(request.backbone).__name__}")
    return attrs.evolve(resolved, recipe=attrs.evolve(resolved.recipe, **changes)), objects


def _backbone_meta(resolved: Resolved, plan: Plan, given: bool) -> dict[str, Any]:
    part = resolved.part("backbone")
    return {
        "method": resolved.recipe.name,
        "backbone": resolved.recipe.backbone.name,
        "given": given,
        "settings": attrs.asdict(part.settings),
        "channels": plan.channels,
        "image_size": plan.image_size,
        "parts": parts_of(resolved, plan),
        "published": protocols_of(resolved),
    }
