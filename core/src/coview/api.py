"""coview from Python: the same runs, recipes and parts as from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.errors import RequestError
from coview.plan import Plan
from coview.recipes.recipe import Recipe, find_recipe
from coview.registry import find, kind_of
from coview.settings import structure

if TYPE_CHECKING:
    from torch import Tensor, nn

    from coview.method.module import Method
    from coview.training.run import Run
    from coview.weights.exported import ExportedBackbone


def recipe(name_or_path: str | Path) -> Recipe:
    """Return the recipe of an installed method, or of a TOML file; imports no component.

    Raises:
        RequestError: there is none; the sentence has the nearest name.
    """
    return find_recipe(name_or_path)


def component(kind: str, name: str, *, plan: Plan | None = None, **settings: Any) -> nn.Module:
    """Build one part, for a training loop of one's own.

    Args:
        kind: ``"losses"``, ``"negatives"``, ``"targets"``, ... or a role.
        name: the component's.
        plan: what the part must know, e.g. ``Plan(batch_size=256, dim=128)``.
        **settings: those that differ from the defaults.

    Raises:
        RequestError: unknown name, or wrong settings (all of them at once).
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
        recipe: as :func:`recipe` gives it, or one of your own.
        plan: data set size, channels, image size, batch size and steps.
        preset: laid over the recipe, if any.

    Raises:
        RequestError: a value is wrong, or parts do not fit together.
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
    """Load a backbone: (B, C, H, W) float in [0, 1] -> (B, D).

    It standardises the images itself, as in training, and is in evaluation mode.

    Args:
        path: a run's directory, a file that coview wrote (of a backbone or a
            classifier) or another program did, or ``timm:NAME``.
        backbone: a module to load into, where the run was given one; the name of
            the network that another program's file is of.
        pretrained: of ``timm:NAME``: the weights that timm publishes, not random ones.
        seed: of random weights.

    Raises:
        RequestError: there is no such thing, or it does not fit.
        CoviewError: a file is damaged, or weights cannot be fetched.
    """
    from coview.weights.exported import load_backbone as load
    from coview.weights.open import open_weights

    if backbone is not None and not isinstance(backbone, str):
        return load(path, backbone)
    return open_weights(path, backbone=backbone, pretrained=pretrained, seed=seed).network


def train(
    method: str | Path | Recipe = "simclr",
    data: Any = None,
    *,
    out: str | Path | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    backbone: str | nn.Module | None = None,
    image_size: int | None = None,
    preset: str | None = None,
    use: Mapping[str, str | Sequence[str]] | None = None,
    set: Mapping[str, Any] | None = None,
    views: Callable[[Tensor], Tensor] | None = None,
    init: str | Path | None = None,
    resume: str | Path | None = None,
    allow_change: Sequence[str] = (),
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
    workers: int | None = None,
    on_bad_image: str | None = None,
    seed: int | None = None,
    max_steps: int | None = None,
    save_every: str = "10m",
    evaluate_every: int = 0,
    evaluate: bool = True,
    log_every: int = 50,
    observe: Sequence[Any] = (),
    on_collapse: str | None = None,
    timeout: float = 600.0,
    download: bool = False,
    progress: bool = True,
) -> Run:
    """Train, and return the finished run.

    Args:
        method: a method's name, a TOML file (also a run's ``recipe.toml``), or a recipe.
        data: ``SOURCE[:PATH]`` (default ``digits``), a torch data set, a tensor
            or array of images, or ``(images, labels)``.
        out: the run's directory; default ``runs/METHOD-DATA-TIME``.
        epochs, batch_size, accumulate: in place of the recipe's.
        backbone: a registered or timm name, or a module (B, C, H, W) -> (B, D).
        image_size: pixels a side that the loader delivers.
        preset: by name, ``"none"`` for none; chosen by image size if not given.
        use: components by role, ``{"negatives": "queue"}``.
        set: settings, ``{"negatives.size": 512}``.
        views: a kornia or torchvision transform, called on images in [0, 1],
            that makes each of two views.
        init: weights to start the backbone from: a run or a file of coview's.
        resume: a run's directory to go on with; recipe, data and seed come from it
            (data, backbone and views that were Python objects are given again).
        allow_change: what may differ from the run that is resumed, by name: a setting
            (``"optimizer.lr"``), a table, ``"recipe"``, ``"data"``, ``"seed"``,
            ``"precision"``, ``"world-size"``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        compile: compile networks, views and losses, for a minute or two at the start.
        workers: processes that decode images, for sets too large for memory.
        on_bad_image: of an image that cannot be read: ``"skip"`` (another takes its place,
            up to 1 %) or ``"stop"``.
        seed: of everything random (default 0).
        max_steps: stop after so many steps; schedules keep their full length.
        save_every: steps, or minutes (``"10m"``), between checkpoints.
        evaluate_every: epochs between kNN evaluations during training.
        evaluate: measure kNN accuracy before and after, where labels exist.
        log_every: steps between logged metrics.
        observe: observers: ``"NAME"``, ``"NAME:key=value,key=value"`` or objects with hooks.
        on_collapse: ``"warn"`` (default), ``"stop"`` or ``"ignore"``: what to do when
            embeddings no longer tell images apart.
        timeout: seconds until a process of several that hears nothing of another ends the run.
        download: fetch a named data set that is missing.
        progress: show progress on stderr.

    Raises:
        RequestError: the request is wrong; with every problem found.
        CoviewError: the work failed.
    """
    from coview.recipes.configure import Changes
    from coview.training.start import Request, start

    asked = (observe,) if isinstance(observe, str) else tuple(observe)
    name, module = (
        (backbone, None) if isinstance(backbone, str) or backbone is None else (None, backbone)
    )
    changes = Changes(
        use=use or {},
        set=set or {},
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        backbone=name,
        image_size=image_size,
        on_bad_image=on_bad_image,
        preset=preset,
    )
    request = Request(
        method=method,
        data=data,
        changes=changes,
        out=Path(out) if out else None,
        backbone=module,
        views=views,
        init=Path(init) if init else None,
        resume=Path(resume) if resume else None,
        allow_change=(allow_change,) if isinstance(allow_change, str) else tuple(allow_change),
        device=device,
        precision=precision,
        compile=compile,
        workers=workers,
        seed=seed,
        max_steps=max_steps,
        save_every=save_every,
        evaluate_every=evaluate_every,
        evaluate=evaluate,
        log_every=log_every,
        timeout=timeout,
        download=download,
        observe=(*(("progress",) if progress else ()), *asked),
        on_collapse=on_collapse,
        command=tuple(sys.argv),
    )
    return _finished(start(request))


def _finished(run: Run) -> Run:
    from coview.training.loop import fit

    fit(run)
    return run
