"""From a request to a run that is ready for its first (or next) step."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from coview.backbones import from_module
from coview.configure import Changes, configure, run_table
from coview.data.arrays import OBJECT
from coview.data.base import ImageData, Source
from coview.data.loader import Batches
from coview.data.sources import open_source
from coview.errors import RequestError
from coview.evaluation.exported import is_foreign, load_backbone, refuse_other_heads
from coview.evaluation.layouts import load_into, match, read_tensors
from coview.evaluation.rebuilt import parts_of
from coview.method import Method, build_method
from coview.plan import Plan
from coview.recipes import Recipe, Use, find_recipe
from coview.resolve import GIVEN, Resolved
from coview.training import checkpoints
from coview.training.device import autocasting, pick_device, pick_precision
from coview.training.distributed import (
    active,
    from_first,
    is_first,
    join,
    rank,
    wait,
    world_size,
)
from coview.training.loop import Clock
from coview.training.observers import OF_THE_TERMINAL, Watcher, restore, watchers
from coview.training.optimizers import make_optimizer
from coview.training.run import (
    Options,
    Run,
    cut_metrics,
    default_directory,
    new_directory,
    refuse_taken,
    write_start,
)
from coview.training.sync_norm import synchronise
from coview.views import TransformViews


@attrs.frozen(kw_only=True, eq=False)
class Request:
    """What a user asked for; see :func:`coview.train` for the meaning of each."""

    method: str | Path | Recipe = "simclr"
    data: Any = None
    changes: Changes = attrs.field(factory=Changes)
    out: Path | None = None
    backbone: nn.Module | None = None
    views: Callable[[Tensor], Tensor] | None = None
    init: Path | None = None
    resume: Path | None = None
    device: str = "auto"
    precision: str | None = None
    compile: bool = False
    workers: int | None = None
    seed: int | None = None
    max_steps: int | None = None
    save_every: str = "10m"
    evaluate_every: int = 0
    evaluate: bool = True
    log_every: int = 50
    download: bool = False
    observe: tuple[Any, ...] = ()
    command: tuple[str, ...] = ()
    layer: str = "Python"


def prepare(request: Request) -> tuple[Resolved, Source, Options]:
    """Resolve and validate; build and load nothing.

    Raises:
        RequestError: with every problem found.
    """
    table = run_table(request.method)
    Clock.of(request.save_every, 0)
    device = pick_device(request.device)
    data = request.data if request.data is not None else table.get("data", "digits")
    source = open_source(data, request.download)
    changes = request.changes
    if changes.preset is None and table:
        # A run's recipe is resolved already; a preset would be laid over it twice.
        changes = attrs.evolve(changes, preset="none")
    resolved = configure(request.method, source, changes, request.layer)
    _same_kind(resolved, source)
    options = Options(
        seed=_first(request.seed, table.get("seed"), 0),
        device=device,
        precision=pick_precision(_first(request.precision, table.get("precision"), "auto"), device),
        workers=_first(request.workers, table.get("workers"), 0),
        max_steps=_first(request.max_steps, table.get("max_steps"), None),
        save_every=request.save_every,
        evaluate_every=request.evaluate_every,
        log_every=request.log_every,
        evaluate=request.evaluate,
        compile=request.compile,
    )
    return resolved, source, options


def _same_kind(resolved: Resolved, source: Source) -> None:
    """Refuse signals where views take images, and images where they take signals."""
    views = resolved.part("views")
    takes, given = getattr(views.factory, "signals", False), getattr(source, "signals", False)
    if takes != given:
        kinds = {True: "signals", False: "images"}
        raise RequestError(
            f"views {views.name!r} take {kinds[takes]}, but the data are {kinds[given]}: use "
            f"{'--data wav:FOLDER' if takes else 'a data set of images, or the method cpc-audio'}."
        )


def start(request: Request) -> Run:
    """Return a run that is ready: data loaded, method built, directory made.

    Raises:
        RequestError: the request is wrong.
    """
    join(request.device)
    if request.resume is not None:
        _refuse_changes(request)
    observers = _watchers(request)
    run = _new(request) if request.resume is None else _resumed(request, observers)
    for watcher in observers:
        run.method.observe(watcher.observer, watcher.name, watcher.package)
    run.observers = {watcher.name: watcher for watcher in observers}
    if request.resume is None and is_first():
        # Only now: a run that cannot start must not take the directory.
        write_start(run, list(request.command))
    return run


def _watchers(request: Request) -> list[Watcher]:
    """Return the observers asked for, before them those that a resumed run had."""
    facts = request.resume / "run.json" if request.resume is not None else None
    before = _read_facts(facts).get("observers", []) if facts is not None else []
    asked = [item for item in request.observe if is_first() or item != OF_THE_TERMINAL]
    return watchers([*before, *asked])


def _read_facts(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise RequestError(f"There is no run at {file.parent} to resume.")
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return facts


def _new(request: Request) -> Run:
    if request.out is not None and is_first():
        refuse_taken(request.out)
    resolved, source, options = prepare(request)
    if request.out is not None and is_first():
        new_directory(request.out)
    return _assemble(request, resolved, source, options, request.out)


def _assemble(
    request: Request, resolved: Resolved, source: Source, options: Options, out: Path | None
) -> Run:
    if not is_first():
        wait()  # the first process fetches what is missing
    data = source.load(resolved.data, options.workers)
    if is_first():
        wait()
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
    _initialise(method, request.init, notices.append)
    method.to(options.device)
    synchronise(method)
    method.autocast = autocasting(options.precision, options.device)
    if options.compile:
        method.encoder.trunk.compile()
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


def _wrapped(method: Method, device: torch.device) -> nn.Module:
    if not active():
        return method
    # Buffers are kept equal by being fed the same rows; broadcasting would hide it if not.
    devices = [device] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {option: False}
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


def _initialise(method: Method, weights: Path | None, notice: Callable[[str], None]) -> None:
    if weights is None:
        return
    if is_foreign(weights):
        backbone = method.encoder.backbone()
        matched = match(read_tensors(weights), backbone, weights)
        load_into(backbone, matched)
        _share(method, backbone.state_dict())
        notice(matched.report(weights))
        return
    exported = load_backbone(weights)
    refuse_other_heads(exported.meta, method.encoder.trunk, weights)
    loaded = exported.backbone.state_dict()
    try:
        method.encoder.backbone().load_state_dict(loaded)
    except RuntimeError as error:
        raise RequestError(f"--init {weights} does not fit this backbone: {error}") from error
    _share(method, loaded)


def _share(method: Method, backbone: dict[str, Any]) -> None:
    target = method.components["target"]
    if hasattr(target, "backbone"):
        target.backbone().load_state_dict(backbone)  # type: ignore[operator]


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
    }


def _resumed(request: Request, observers: list[Watcher]) -> Run:
    path = request.resume
    assert path is not None
    facts = _read_facts(path / "run.json")
    state = checkpoints.read(path / "checkpoints" / "last.pt")
    recipe_file = path / "recipe.toml"
    if request.data is None and facts["data"]["name"] == OBJECT:
        raise RequestError(
            "This run's data were a Python object: pass it again, "
            "coview.train(resume=..., data=...)."
        )
    again = attrs.evolve(
        request,
        method=attrs.evolve(find_recipe(recipe_file), name=facts["method"]),
        # A Python object cannot be named; the fingerprint tells whether it is the same.
        data=request.data if request.data is not None else facts["data"]["name"],
        changes=Changes(preset="none"),
        seed=facts["seed"],
        precision=facts["precision"],
    )
    resolved, source, options = prepare(again)
    run = _assemble(again, resolved, source, options, path)
    checkpoints.same_run(state["identity"], run.identity)
    run.step = checkpoints.restore(state, run.method, run.optimizer, run.scaler)
    restore({watcher.name: watcher for watcher in observers}, state.get("observers", {}))
    if is_first():
        run.metrics = cut_metrics(path, run.step)
    return run


def _refuse_changes(request: Request) -> None:
    fixed = ("changes", "out", "init", "precision", "seed")
    plain = Request()
    given = [name for name in fixed if getattr(request, name) != getattr(plain, name)]
    if given:
        raise RequestError(
            f"A run is resumed as it was: {', '.join(given)} cannot be given beside resume."
        )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
