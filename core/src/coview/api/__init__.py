"""coview in Python: the same runs, recipes and components as on the command line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.api.looking import neighbours
from coview.api.measuring import compare, evaluate
from coview.api.writing import embed, export
from coview.errors import RequestError
from coview.plan import Plan
from coview.recipes.recipe import Recipe, find_recipe
from coview.registry import find, kind_of
from coview.settings import structure

if TYPE_CHECKING:
    from torch import nn

    from coview.api.results import Result
    from coview.method.module import Method
    from coview.nn.encoder import Encoder
    from coview.recipes.configure import Changes
    from coview.training.run import Run
    from coview.weights.exported import ExportedBackbone

__all__ = [
    "build",
    "compare",
    "component",
    "embed",
    "evaluate",
    "export",
    "load_backbone",
    "load_encoder",
    "neighbours",
    "recipe",
    "train",
    "views",
]


def recipe(name_or_path: str | Path) -> Recipe:
    """Return the recipe of an installed method or of a TOML file, without importing components.

    Raises:
        RequestError: there is no such recipe; the message suggests the nearest name.
    """
    return find_recipe(name_or_path)


def component(kind: str, name: str, *, plan: Plan | None = None, **settings: Any) -> nn.Module:
    """Build one component, for your own training loop.

    Args:
        kind: ``"losses"``, ``"negatives"``, ``"targets"``, ... or a role.
        name: the component's name.
        plan: what the component must know, e.g. ``Plan(batch_size=256, dim=128)``.
        **settings: settings that differ from the defaults.

    Raises:
        RequestError: the name is unknown, or settings are wrong (all of them at once).
    """
    factory = find(kind_of(kind), name).load()
    made, problems = structure(factory.Settings, settings, name)
    if problems:
        raise RequestError(*problems)
    built: nn.Module = factory(made, plan or Plan())
    return built


def build(recipe: Recipe, plan: Plan, preset: str | None = None) -> Method:
    """Build a recipe's five components as one module.

    Args:
        recipe: as returned by :func:`recipe`, or your own.
        plan: data set size, channels, image size, batch size and steps.
        preset: the name of a preset to lay over the recipe.

    Raises:
        RequestError: a value is wrong, or components do not fit together.
    """
    from coview.method.module import build_method
    from coview.recipes.configure import Changes, configure

    changes = Changes(preset=preset or "none")
    return build_method(configure(recipe, None, changes, "Python"), plan)


def load_backbone(
    path: str | Path,
    backbone: str | nn.Module | None = None,
    *,
    pretrained: bool = False,
    seed: int = 0,
) -> ExportedBackbone:
    """Load a backbone: (B, C, H, W) float in [0, 1] -> (B, D), or (C, H, W) -> (D,).

    It is in evaluation mode and standardises images itself, as in training. A Python warning
    says so if the first images leave [0, 1], and what is imported if a run's directory names
    code of your own.

    Args:
        path: a run's directory, a file written by coview (a backbone or a
            classifier) or by another program, or ``timm:NAME``.
        backbone: for a run whose backbone was a Python object, a module to load
            into, or ``"file.py:function"`` or ``"module:function"``, which makes one (a run
            that was trained with such a name finds it by itself); for another program's
            file, the name of its architecture.
        pretrained: for ``timm:NAME``: load timm's published weights, not random ones.
        seed: seed for random weights.

    Raises:
        RequestError: there are no such weights, or they do not fit.
        CoviewError: a file is damaged, or weights cannot be downloaded.
    """
    from coview.weights.open import open_weights

    found = open_weights(path, backbone=backbone, pretrained=pretrained, seed=seed)
    for sentence in found.imported:
        warnings.warn(sentence, stacklevel=2)
    return found.network


def load_encoder(run: Run | str | Path) -> Encoder:
    """Load a run's whole encoder, on the CPU and in evaluation mode.

    Beside the backbone, which :func:`load_backbone` gives alone, it has what else was trained
    and a backbone's file leaves out: the projection head, prototypes, the text tower of an
    encoder of images and texts. Its backbone takes images as views are (standardised).

    Args:
        run: a run or its directory, with its checkpoint.

    Raises:
        RequestError: it is no run, its checkpoint is gone, or its backbone was a Python object.
        CoviewError: the checkpoint is damaged or does not fit.
    """
    from coview.weights import checkpoint
    from coview.weights.exported import stored

    path = Path(run) if isinstance(run, (str, Path)) else run.path
    card, _ = stored(path)
    return checkpoint.load_encoder(path, card).eval()


def train(
    method: str | Path | Recipe = "simclr",
    data: Any = None,
    *,
    out: str | Path | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    lr: float | str | None = None,
    weight_decay: float | str | None = None,
    warmup: float | None = None,
    temperature: float | str | None = None,
    backbone: str | nn.Module | None = None,
    image_size: int | None = None,
    preset: str | None = None,
    use: Mapping[str, str | Sequence[str]] | None = None,
    set: Mapping[str, Any] | None = None,
    views: str | Callable[[Any], Any] | Sequence[Callable[[Any], Any]] | None = None,
    init: str | Path | None = None,
    resume: str | Path | None = None,
    allow_change: Sequence[str] = (),
    device: str | None = None,
    precision: str | None = None,
    compile: bool | str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    on_bad_image: str | None = None,
    seed: int | None = None,
    max_steps: int | str | None = None,
    save_every: str | int | None = None,
    evaluate_every: int | None = None,
    evaluate: bool | None = None,
    report: bool | None = None,
    log_every: int | None = None,
    observe: Sequence[Any] = (),
    on_collapse: str | None = None,
    timeout: float | None = None,
    download: bool = False,
    progress: bool = True,
) -> Run:
    """Train, and return the finished run.

    None means "not given": a resumed run keeps the value it had, and a new run uses the
    default (see :class:`coview.training.run_settings.RunSettings`).

    Args:
        method: a method's name, a TOML file (such as a run's ``recipe.toml``), or a recipe.
        data: ``SOURCE[:PATH]`` (default ``digits``), a torch data set, a tensor
            or array of images, ``(images, labels)``, or a dict of ``images``,
            ``labels`` and other fields.
        out: the run's directory; default ``runs/METHOD-DATA-TIME``.
        epochs, batch_size, accumulate: replace the recipe's values.
        lr: learning rate, before the recipe's rule for the batch size (``optimizer.lr``).
        weight_decay: weight decay, or a schedule of it (``optimizer.weight_decay``).
        warmup: epochs in which the learning rate rises (``schedule.warmup_epochs``).
        temperature: of the loss, or a schedule of it (``loss.temperature``).
        backbone: a registered or timm name, a module (B, C, H, W) -> (B, D), or
            ``"file.py:function"`` or ``"module:function"``, which makes one from nothing or from
            ``(channels, image_size)``. Unlike a module, a name is recorded with the run.
        image_size: pixels per side that the loader delivers.
        preset: a preset's name, or ``"none"``; chosen by the images if not given.
        use: components by role, e.g. ``{"negatives": "queue"}``.
        set: settings, e.g. ``{"negatives.size": 512}``; where only one component of the
            recipe has a setting of that name, the name alone will do.
        views: a transform that makes a view of an image, from kornia, torchvision or of your
            own; a list of them, one for each view; one that returns a list of views; or
            ``"file.py:name"`` or ``"module:name"`` of any of these. See ``docs/own.md``.
        init: weights to start the backbone from: a run or a file.
        resume: the directory of a run to continue; recipe, data and settings come from it
            (data, backbone and views that were Python objects must be passed again).
        allow_change: what may differ from the saved run: a setting
            (``"optimizer.lr"``), a table, ``"recipe"``, ``"data"``, ``"seed"``,
            ``"precision"``, ``"threads"``, ``"world-size"``.
        device: ``auto`` (default), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` (default), ``fp32``, ``bf16`` or ``fp16``.
        compile: True or ``"on"``: compile networks, views and losses, which takes a minute
            or two at the start; False or ``"off"``: nothing; default ``"auto"``: only views,
            in runs of 20,000 steps or more.
        threads: threads that compute on a processor (default: one for each core). Fewer are
            faster while other programs keep the cores busy.
        workers: processes that decode images, for sets too large for memory.
        on_bad_image: what to do with unreadable images: ``"skip"`` (another takes its place,
            up to 1 %) or ``"stop"``.
        seed: random seed (default 0).
        max_steps: stop after this many steps (``"none"``: no limit). The learning rate goes on
            as if the run were to do all of its epochs.
        save_every: steps, or minutes (``"10m"``, the default), between checkpoints.
        evaluate_every: epochs between kNN evaluations during training (default 0: never).
        evaluate: measure kNN accuracy before and after training, if there are labels
            (default True).
        report: let installed packages write their report of the run, such as coview-report's
            ``report.html`` (default True).
        log_every: steps between logged metrics (default 50).
        observe: observers: ``"NAME"``, ``"NAME:key=value,key=value"`` or objects with hooks.
        on_collapse: ``"warn"`` (default), ``"stop"`` or ``"ignore"``: what to do when
            embeddings no longer tell images apart.
        timeout: end the run if a process hears nothing from the others for this many
            seconds (default 600).
        download: download a named data set if it is missing.
        progress: show progress on stderr.

    Raises:
        RequestError: the request is wrong; the message lists every problem.
        CoviewError: the work failed.
    """
    from coview.training.request import Request
    from coview.training.start import start

    named = isinstance(data, (str, Path)) or data is None
    settings = {
        "data": str(data) if named and data is not None else None,
        "preset": preset,
        "init": str(init) if init else None,
        "device": device,
        "precision": precision,
        "compile": ("on" if compile else "off") if isinstance(compile, bool) else compile,
        "threads": threads,
        "workers": workers,
        "seed": seed,
        "max_steps": max_steps,
        "save_every": None if save_every is None else str(save_every),
        "evaluate_every": evaluate_every,
        "evaluate": evaluate,
        "report": report,
        "log_every": log_every,
        "timeout": timeout,
        "download": download or None,
    }
    asked = (observe,) if isinstance(observe, str) else tuple(observe)
    is_name = isinstance(backbone, str) or backbone is None
    uses = {**(use or {}), **({"views": views} if isinstance(views, str) else {})}
    changes = _changes(
        {"lr": lr, "weight_decay": weight_decay, "warmup": warmup, "temperature": temperature},
        set,
        use=uses,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        backbone=backbone if is_name else None,
        image_size=image_size,
        on_bad_image=on_bad_image,
        preset=preset,
    )
    request = Request(
        method=method,
        data=None if named else data,
        changes=changes,
        settings={name: value for name, value in settings.items() if value is not None},
        out=Path(out) if out else None,
        resume=Path(resume) if resume else None,
        allow_change=(allow_change,) if isinstance(allow_change, str) else tuple(allow_change),
        backbone=None if is_name else backbone,  # type: ignore[arg-type]
        views=None if isinstance(views, str) else views,
        observe=(*(("progress",) if progress else ()), *asked),
        on_collapse=on_collapse,
        command=tuple(sys.argv),
    )
    return _finished(start(request))


def _changes(short: dict[str, Any], set: Mapping[str, Any] | None, **others: Any) -> Changes:
    """Return changes to a recipe; ``short`` are settings that have an argument of their own."""
    from coview.recipes.configure import Changes

    given = {name: value for name, value in short.items() if value is not None}
    return Changes(set=given | dict(set or {}), **others)


def _finished(run: Run) -> Run:
    from coview.training.loop import fit

    fit(run)
    return run


def views(
    method: str | Path | Recipe | Run,
    data: Any = None,
    *,
    out: str | Path,
    html: str | Path | None = None,
    images: int = 8,
    draws: int = 2,
    seed: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    lr: float | str | None = None,
    weight_decay: float | str | None = None,
    warmup: float | None = None,
    temperature: float | str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    preset: str | None = None,
    use: Mapping[str, str | Sequence[str]] | None = None,
    set: Mapping[str, Any] | None = None,
) -> Result:
    """Draw a few images and the views that a recipe, or a run's own, makes of them.

    The images are of as many classes as there are. Views are drawn at their own sizes; below
    each is what was done to the image, and its crop is outlined in the image in the colour of
    the view's frame (of views that the backend ``fused`` makes).

    Args:
        method: a method's name, a TOML file, a recipe, a run or its directory.
        data: as for :func:`train`; default: the run's own, or digits.
        out: PNG file to write.
        html: HTML file to write as well: one file that needs nothing else.
        images: number of images, one per row (1 to 64).
        draws: times that the views of each image are drawn (1 to 16).
        seed: random seed; default: the run's own, or 0.
        epochs, batch_size, accumulate, lr, weight_decay, warmup, temperature, backbone,
            image_size, preset, use, set: change the recipe, as for :func:`train`.

    Returns:
        A dictionary with ``out``, ``html`` if that is asked for, ``images`` (fewer than asked
        for if the data set is small) and ``columns``, the image's own among them; it prints as
        a sentence.

    Raises:
        RequestError: the request is wrong; the message lists every problem.
        CoviewError: the file could not be written.
    """
    from coview.api.picture import picture

    changes = _changes(
        {"lr": lr, "weight_decay": weight_decay, "warmup": warmup, "temperature": temperature},
        set,
        use=use or {},
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        backbone=backbone,
        image_size=image_size,
        preset=preset,
    )
    return picture(method, data, out, changes, html=html, images=images, draws=draws, seed=seed)
