"""``coview train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands.options import (
    bad_images_help,
    changes_from,
    data_help,
    device_option,
    json_option,
    percent,
    print_json,
    print_table,
    recipe_options,
)
from coview.errors import RequestError

if TYPE_CHECKING:
    from coview.training.run import Run

OF_THE_START = ("out", "preset", "init")
"""Options that have no meaning for a run that has started."""


@click.command("train")
@click.argument("method", metavar="METHOD_OR_FILE", required=False)
@click.option("--data", help=f"{data_help} Default: digits.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: runs/METHOD-DATA-TIME.")
@recipe_options
@click.option("--init", type=click.Path(path_type=Path), help="Weights to start from.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run.")
@click.option(
    "--allow-change",
    multiple=True,
    metavar="NAME",
    help="Of a run to resume: a setting (optimizer.lr, epochs), a table, recipe, data, seed, "
    "precision or world-size that may differ; repeatable.",
)
@device_option
@click.option("--precision", help="auto, fp32, bf16 or fp16.  [default: auto]")
@click.option(
    "--compile/--no-compile", "compiled", default=False, help="Compile networks, views, losses."
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes that decode images.")
@click.option("--on-bad-image", type=click.Choice(["skip", "stop"]), help=bad_images_help)
@click.option("--seed", type=int, help="Of everything random.  [default: 0]")
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    help="Stop after so many steps; schedules keep their full length.",
)
@click.option("--save-every", default="10m", show_default=True, help="Steps, or minutes (10m).")
@click.option(
    "--evaluate-every",
    type=click.IntRange(min=0),
    default=0,
    help="Epochs between kNN evaluations.",
)
@click.option(
    "--log-every",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Steps between logged metrics; the end of an epoch is logged too.",
)
@click.option("--no-evaluate", is_flag=True, help="No kNN accuracy before and after.")
@click.option(
    "--observe",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="An observer and its settings; repeatable.",
)
@click.option(
    "--on-collapse",
    type=click.Choice(["warn", "stop", "ignore"]),
    help="What to do when embeddings no longer tell images apart.  [default: warn]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600,
    show_default=True,
    help="Seconds until a process of several that hears nothing of another ends the run.",
)
@click.option("--download", is_flag=True, help="Fetch a named data set that is missing.")
@click.option("--dry-run", is_flag=True, help="Resolve, validate and print; build nothing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    method: str | None,
    data: str | None,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    out: Path | None,
    init: Path | None,
    resume: Path | None,
    allow_change: tuple[str, ...],
    device: str,
    precision: str | None,
    compiled: bool,
    workers: int | None,
    on_bad_image: str | None,
    seed: int | None,
    max_steps: int | None,
    save_every: str,
    evaluate_every: int,
    log_every: int,
    no_evaluate: bool,
    observe: tuple[str, ...],
    on_collapse: str | None,
    timeout: float,
    download: bool,
    dry_run: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    r"""Train a method (or a recipe file) on images without labels.

    \b
    coview train simclr --data digits --epochs 20
    coview train moco-v2 --data photos/ --use negatives=in-batch
    coview train byol --set target.decay="cosine(0.99, 1.0)"
    coview train --resume runs/simclr-digits-...
    coview train --resume runs/... --epochs 400 --allow-change epochs
    """
    if (method is None) == (resume is None):
        raise RequestError("Name a METHOD or recipe file to train, or a run to --resume.")
    if resume is not None:
        _refuse_changes(ctx, dry_run)
    from coview.training.start import Request

    request = Request(
        method=method or "",
        data=data,
        changes=changes_from(uses, settings, on_bad_image=on_bad_image, **shortcuts),
        out=out,
        init=init,
        resume=resume,
        allow_change=allow_change,
        device=device,
        precision=precision,
        compile=compiled,
        workers=workers,
        seed=seed,
        max_steps=max_steps,
        save_every=save_every,
        evaluate_every=evaluate_every,
        log_every=log_every,
        evaluate=not no_evaluate,
        timeout=timeout,
        download=download,
        observe=("progress", *observe),
        on_collapse=on_collapse,
        command=tuple(sys.argv),
        layer="command line",
    )
    if dry_run:
        _dry_run(request, as_json)
    else:
        _train(ctx, request, as_json)


def _refuse_changes(ctx: click.Context, dry_run: bool) -> None:
    names = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    given = [names[key] for key in OF_THE_START if _is_given(ctx, key)]
    if given:
        raise RequestError(
            f"--resume goes on with the run as it was: leave out {', '.join(given)}."
        )
    if dry_run:
        raise RequestError("--resume has nothing to resolve: leave out --dry-run.")


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _dry_run(request: Any, as_json: bool) -> None:
    from coview.cli.show import as_document, show
    from coview.training.start import prepare

    resolved, _, _ = prepare(request)
    if as_json:
        print_json(as_document(resolved))
    else:
        show(resolved)


def _train(ctx: click.Context, request: Any, as_json: bool) -> None:
    from coview.distributed import is_first
    from coview.training.loop import fit
    from coview.training.start import start

    run = start(request)
    first = is_first()
    if request.resume is None and first:
        click.echo(f"preset: {run.resolved.preset or 'none'}", err=True)
    for notice in run.resolved.notices if first else ():
        click.echo(f"note: {notice}", err=True)
    try:
        fit(run)
    except KeyboardInterrupt as error:
        if first:
            click.echo(_interrupted(run), err=True)
        ctx.exit(getattr(error, "status", 1))
    if not first:
        return
    if as_json:
        print_json(_summary(run))
    else:
        _print_accuracies(run)
        click.echo(f"run: {run.path}")


def _interrupted(run: Run) -> str:
    if run.saved_at is None:
        return f"Interrupted; no checkpoint was saved. {run.path} may be deleted."
    return f"Interrupted. Step {run.saved_at} is saved; go on by: coview train --resume {run.path}"


def _summary(run: Run) -> dict[str, Any]:
    names = ("raw_pixels_knn_top1", "untrained_knn_top1", "knn_top1", "loss")
    return {"run": str(run.path), "steps": run.step, **{name: run.value(name) for name in names}}


def _print_accuracies(run: Run) -> None:
    knn = run.value("knn")
    if knn is None:
        return
    labels = {
        "raw_pixels_knn_top1": "raw pixels",
        "untrained_knn_top1": "untrained network",
        "knn_top1": "trained network",
    }
    click.echo(
        f"kNN top-1 (k = {knn['k']}, temperature {knn['temperature']}) on "
        f"{knn['test_images']} test images:"
    )
    values = ((label, run.value(name)) for name, label in labels.items())
    print_table([(label, percent(v)) for label, v in values if v is not None], indent="  ")
