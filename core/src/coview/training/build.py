"""Build a run from a resolved request: load the data, make method and optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from coview.components import Component, TargetComponent, declared
from coview.data.base import ImageData
from coview.data.loader import Batches
from coview.distributed import active, from_first, is_first, rank, wait, world_size
from coview.errors import RequestError
from coview.method.module import Method, build_method
from coview.nn.compile import SHORT_RUN, decide
from coview.nn.encoder import Encoder
from coview.nn.own import classifier_note, from_module
from coview.nn.sync_norm import synchronise
from coview.optim.groups import make_optimizer
from coview.plan import Plan
from coview.recipes.recipe import Use
from coview.recipes.resolve import GIVEN, Resolved
from coview.training.agreement import refuse_unequal
from coview.training.device import allow_tf32, autocasting
from coview.training.directory import default_directory
from coview.training.estimate import estimate, free_memory, is_small
from coview.training.fields import fields_for
from coview.training.fitting import (
    cut,
    limit_of_data,
    limit_of_memory,
    negatives_from_batch,
)
from coview.training.request import Prepared, Request
from coview.training.run import Run
from coview.training.run_settings import RunSettings
from coview.views import TransformViews
from coview.weights.card import card_of
from coview.weights.exported import is_foreign, refuse_other_heads, stored
from coview.weights.foreign import load_into, match, read_tensors
from coview.weights.own import code_of, own_notes
from coview.weights.places import local


def assemble(request: Request, prepared: Prepared, path: Path | None, here: bool = True) -> Run:
    """Load the data and build everything that a run needs; write nothing.

    Args:
        request: what was asked for.
        prepared: the same, resolved.
        path: the run's directory; None: the default one.
        here: the run is for this machine, so a step must fit its memory.

    Raises:
        RequestError: the parts do not fit together, or do not suit the number of processes.
    """
    data = _loaded(prepared)
    asked = prepared.resolved
    fitted = cut(asked, limit_of_data(asked, len(data.train), world_size()))
    path = from_first(path or default_directory(fitted.recipe.name, data.name))
    run = _built(request, attrs.evolve(prepared, resolved=fitted), data, path)
    if not here or is_small(run):
        return run
    # The first process measures for all, so that all decide the same.
    run.estimate, free = from_first((estimate(run), free_memory(run.device)))
    limit = limit_of_memory(fitted, run.plan.local_batch_size, run.estimate, free)
    if limit is None:
        return run
    run = _built(request, attrs.evolve(prepared, resolved=cut(asked, limit)), data, path)
    run.estimate = from_first(estimate(run))
    return run


def _built(request: Request, prepared: Prepared, data: ImageData, path: Path) -> Run:
    resolved, settings, device = prepared.resolved, prepared.settings, prepared.device
    batches = Batches(
        data.train,
        resolved.training.batch_size,
        settings.seed,
        device,
        settings.workers,
        rank(),
        world_size(),
        fields=fields_for(resolved, data),
        whole=data.fit == "whole",
    )
    _check_micro_batches(resolved)
    notices: list[str] = [*resolved.notices, *data.notes]
    plan = _plan(resolved, data, batches.steps_per_epoch, notices.append)
    settings = attrs.evolve(
        settings, data=data.name, compile=decide(settings.compile, _length(settings, plan))
    )
    refuse_unequal(resolved, settings, data)
    if settings.compile == "on" and _length(settings, plan) < SHORT_RUN:
        notices.append(
            f"compiling takes a minute or two, which {_length(settings, plan)} steps hardly win "
            "back: --no-compile"
        )
    notices += _fewer_negatives(resolved)
    torch.manual_seed(settings.seed)
    request = _with_views_of_data(request, prepared, notices.append)
    resolved, objects = _objects(request, resolved, plan)
    notices += own_notes(resolved)
    method = build_method(resolved, plan, objects)
    if note := classifier_note(method.backbone()):
        notices.append(note)
    if request.resume is None and settings.init is not None:
        initialise(method, local(settings.init), notices.append)
    method.to(device)
    synchronise(method)
    allow_tf32(settings.precision, device)
    method.autocast = autocasting(settings.precision, device)
    if settings.compile == "on":
        _compile(method)
    optimizer = resolved.part("optimizer")
    schedule = resolved.part("schedule")
    return Run(
        path=path,
        resolved=attrs.evolve(resolved, notices=tuple(dict.fromkeys(notices))),
        plan=plan,
        data=data,
        method=method,
        module=_wrapped(method, device),
        optimizer=make_optimizer(optimizer.factory, optimizer.settings, method, plan, device),
        schedule=schedule.factory(schedule.settings, plan),
        scaler=torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16"),
        batches=batches,
        settings=settings,
        device=device,
        peak=optimizer.settings.peak(plan.batch_size),
        card=card_of(resolved, plan, data.reading),
    )


def _length(settings: RunSettings, plan: Plan) -> int:
    """Return how many steps this run does: its schedule may be longer."""
    most = settings.max_steps
    return plan.total_steps if most is None else min(most, plan.total_steps)


def _loaded(prepared: Prepared) -> ImageData:
    """Load the data, on the first process first, which downloads what is missing."""
    if not is_first():
        wait()
    data = prepared.source.load(prepared.resolved.data, prepared.settings.workers)
    if is_first():
        wait()
    wait()  # loading may take longer than the run's timeout
    return data


def _fewer_negatives(resolved: Resolved) -> list[str]:
    """Return a note if a batch is cut into parts and negatives come from a part alone."""
    batch, parts = resolved.training.batch_size, resolved.training.accumulate
    if parts == 1 or not negatives_from_batch(resolved):
        return []
    return [
        f"negatives are the other images of one of {parts} parts of the batch: "
        f"{batch // parts - 1} for each image, where the whole batch would give {batch - 1}"
    ]


def _compile(method: nn.Module) -> None:
    """Compile trunk and heads of every encoder, including targets' copies, for fixed shapes."""
    for encoder in method.modules():
        if isinstance(encoder, Encoder):
            for part in (encoder.trunk, encoder.projector, encoder.predictor):
                if part is not None:
                    part.compile(dynamic=False)


def _wrapped(method: Method, device: torch.device) -> nn.Module:
    if not active():
        return method
    # Buffers stay equal because they see the same rows; broadcasting would hide differences.
    devices = [device] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {option: False}
    # Buffers that differ between processes must not be broadcast at the start either.
    own = [
        f"components.{key}.{name}"
        for key, component in method.components.items()
        for name in declared(component, Component, "own_buffers")
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
        fit=data.fit,
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


def _with_views_of_data(
    request: Request, prepared: Prepared, notice: Callable[[str], None]
) -> Request:
    """Let the transform of a data set that gives views make them, if nothing else shall."""
    transform, views = getattr(prepared.source, "transform", None), prepared.resolved.part("views")
    if transform is None:
        return request
    name, count = type(transform).__name__, getattr(prepared.source, "views", 2)
    given = f"Each item of the data set holds {count} views, made by its transform ({name})."
    if request.views is not None or code_of(views) is not None:
        notice(f"{given} The images are read without it, since views= makes the views.")
        return request
    notice(f"{given} The images are read without it, and it makes the views in every step.")
    return attrs.evolve(request, views=transform)


def _objects(request: Request, resolved: Resolved, plan: Plan) -> tuple[Resolved, dict[str, Any]]:
    """Return the recipe with Python objects named in it, and modules made of these objects."""
    objects: dict[str, Any] = {}
    if request.views is not None:
        # The method's own: MoCo compares the first view with the others, whoever makes them.
        symmetric = getattr(resolved.part("views").settings, "symmetric", True)
        objects["views"] = TransformViews(request.views, plan, symmetric)
        settings = {} if symmetric else {"symmetric": False}
        resolved = _naming(resolved, "views", request.views, settings)
    if request.backbone is not None:
        objects["backbone"] = from_module(request.backbone, plan.channels, plan.image_size)
        resolved = _naming(resolved, "backbone", request.backbone, {})
    return resolved, objects


def _naming(resolved: Resolved, table: str, thing: Any, settings: dict[str, Any]) -> Resolved:
    """Return the recipe with a Python object's name in a table."""
    name = f"{GIVEN}{type(thing).__name__}"
    part = attrs.evolve(resolved.part(table), name=name)
    changed: Any = {table: Use(name, **settings)}
    return attrs.evolve(
        resolved,
        recipe=attrs.evolve(resolved.recipe, **changed),
        parts={**resolved.parts, table: (part,)},
    )


def initialise(method: Method, weights: Path, notice: Callable[[str], None]) -> None:
    """Load weights into a method's backbone, from a run, an exported file or another program.

    Raises:
        RequestError: the weights do not fit this backbone.
    """
    if is_foreign(weights):
        backbone = method.encoder.backbone()
        matched = match(read_tensors(weights), backbone, weights)
        load_into(backbone, matched)
        _share(method, backbone.state_dict())
        notice(matched.report(weights))
        return
    card, loaded = stored(weights)
    refuse_other_heads(card, method.encoder.trunk, weights)
    try:
        method.encoder.backbone().load_state_dict(loaded)
    except RuntimeError as error:
        raise RequestError(f"--init {weights} does not fit this backbone: {error}") from error
    _share(method, loaded)


def _share(method: Method, backbone: dict[str, Any]) -> None:
    own = declared(method.components["target"], TargetComponent, "backbone")()
    if own is not None:
        own.load_state_dict(backbone)
