"""``coview train``: train a method."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from coview.cli.early import Resumption, refuse_early, refuse_early_resume
from coview.cli.fits import answer, planned, to_bytes
from coview.commands import completing
from coview.commands.options import (
    asked_settings,
    bad_images_help,
    changes_from,
    json_option,
    percent,
    print_json,
    print_table,
    recipe_options,
    run_options,
    typed,
)
from coview.commands.project import defaults
from coview.errors import RequestError
from coview.telling import listening, spoken, waiting
from coview.terminal import shown
from coview.training.differences import COMMAND_LINE

if TYPE_CHECKING:
    from coview.recipes.configure import Changes
    from coview.training.run import Run

EXAMPLES = """\b
Examples:
  coview train simclr --data digits --epochs 20
  coview train moco-v2 --data photos/ --use negatives=in-batch
  coview train byol --set target.decay="cosine(0.99, 1.0)"
  coview train --resume runs/simclr-digits-...
  coview train --resume runs/... --epochs 400 --allow-change epochs
"""


@click.command("train", epilog=EXAMPLES)
@click.argument(
    "method", metavar="METHOD_OR_FILE", required=False, shell_complete=completing.methods
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run's directory.  [default: runs/METHOD-DATA-TIME]",
)
@recipe_options
@run_options
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    shell_complete=completing.runs,
    help="Continue this run.",
)
@click.option(
    "--allow-change",
    multiple=True,
    metavar="NAME",
    help="With --resume: let this differ from the saved run: a setting (optimizer.lr, epochs), "
    "a table, recipe, data, seed, precision, threads or world-size. Repeatable.",
)
@click.option("--on-bad-image", type=click.Choice(["skip", "stop"]), help=bad_images_help)
@click.option(
    "--on-collapse",
    type=click.Choice(["warn", "stop", "ignore"]),
    help="What to do when embeddings no longer tell images apart.  [default: warn]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check the request, the data, the memory and the time it takes; train nothing.",
)
@click.option(
    "--fits",
    callback=to_bytes,
    metavar="MEMORY",
    help="With --dry-run: say whether a step fits a GPU of so much memory (24GB), or into how many "
    "parts it must be cut; no GPU is needed.",
)
@click.option("--verbose", "-v", is_flag=True, help="With --dry-run: print every setting.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    method: str | None,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    allow_change: tuple[str, ...],
    on_bad_image: str | None,
    on_collapse: str | None,
    dry_run: bool,
    fits: int | None,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a method (or a recipe file) on images without labels."""
    if (method is None) == (resume is None):
        raise RequestError("Name a METHOD or recipe file to train, or a run to --resume.")
    asked = asked_settings(given)
    observe = tuple(asked.pop("observe", ()))
    if resume is not None:
        _refuse_changes(out, asked, dry_run)
    if verbose and not dry_run:
        raise RequestError(
            "--verbose prints the settings of a --dry-run: add that, or leave it out."
        )
    if fits is not None and not dry_run:
        raise RequestError("--fits is a question to a --dry-run: add that, or leave it out.")
    changes = changes_from(
        uses, settings, on_bad_image=on_bad_image, preset=asked.get("preset"), **given
    )
    if method is not None:
        asked, changes = _over_defaults(method, asked, changes)
        usual = tuple(asked.pop("observe", ()))
        observe = observe or usual
        refuse_early(method, changes, out, COMMAND_LINE)
    # Of a GPU that need not be here.
    precision = asked.pop("precision", None) if fits is not None else None
    command = (sys.argv[0], *typed(ctx))
    if resume is not None:
        again = Resumption(
            path=resume,
            changes=changes,
            settings=asked,
            allow_change=allow_change,
            command=command,
        )
        refuse_early_resume(again)
    # Before what takes seconds: the import of torch, and the data.
    click.echo(f"checking, then reading {shown(_first_read(method, resume, asked))}", err=True)
    spoken()
    with waiting(_tell, "loading torch"):
        import coview.training.start  # noqa: F401
        from coview.training.request import Request

    request = Request(
        method=method or "",
        changes=changes,
        settings=asked,
        out=out,
        resume=resume,
        allow_change=allow_change,
        observe=("progress", *observe),
        on_collapse=on_collapse,
        command=command,
        layer=COMMAND_LINE,
    )
    if dry_run:
        _dry_run(request, None if fits is None else (fits, precision), as_json, verbose)
    else:
        _train(ctx, request, as_json)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _over_defaults(
    method: str, asked: dict[str, Any], changes: Changes
) -> tuple[dict[str, Any], Changes]:
    """Lay what was asked for over the defaults in `coview.toml`; a run's recipe has them."""
    from coview.training.run_settings import run_table

    if run_table(method):
        return asked, changes
    found = defaults(method, changes)
    for line in found.told():
        click.echo(line, err=True)
    asked = {**found.settings, **asked}
    return asked, attrs.evolve(changes, below=found.below, preset=asked.get("preset"))


def _first_read(method: str | None, resume: Path | None, asked: dict[str, Any]) -> str:
    """Return what is read before training: the data, or the file or run that names them."""
    if resume is not None:
        return str(resume)
    is_file = method is not None and Path(method).suffix == ".toml"
    return str(asked.get("data") or (method if is_file else "digits"))


def _refuse_changes(out: Path | None, asked: dict[str, Any], dry_run: bool) -> None:
    from coview.training.run_settings import names

    given = ["--out"] if out is not None else []
    given += [f"--{name}" for name in names(at_start=True) if name in asked]
    if given:
        raise RequestError(f"--resume continues the run as it was: leave out {', '.join(given)}.")
    if dry_run:
        raise RequestError("--dry-run does not work with --resume: leave it out.")


def _dry_run(
    request: Any, gpu: tuple[int, str | None] | None, as_json: bool, verbose: bool
) -> None:
    """Say what would run; of a GPU, given its memory and precision, whether a step fits it."""
    from coview.cli.show import as_document, show
    from coview.training.introduction import chosen, introduction
    from coview.training.start import rehearse

    with waiting(_tell, "preparing"), listening(_tell):
        run = rehearse(request, here=gpu is None)
    plan = None
    if gpu is not None:
        with waiting(_tell, "planning memory"):
            plan = planned(run, *gpu)
    if as_json:
        facts = {**_facts(run), **({} if plan is None else {"fits": plan})}
        print_json({**as_document(run.resolved), "run": facts})
        return
    for line in (*chosen(run), *introduction(run)):
        click.echo(line)
    if plan is not None:
        click.echo(answer(plan))
    if verbose:
        click.echo()
        show(run.resolved)
    start = "It would run. " if plan is None else ""  # here, if that was not the question
    click.echo(
        f"{start}Nothing was trained or written: leave out --dry-run to train"
        + ("." if verbose else ", or add -v to see every setting.")
    )


def _facts(run: Run) -> dict[str, Any]:
    estimated = run.estimate
    return {
        "images": len(run.data.train),
        "test_images": 0 if run.data.test is None else len(run.data.test),
        "labelled": run.data.labelled,
        "steps": run.last_step,
        "device": str(run.device),
        "step_seconds": None if estimated is None else estimated.step_seconds,
        "bytes": None if estimated is None else estimated.bytes,
    }


def _train(ctx: click.Context, request: Any, as_json: bool) -> None:
    from coview.distributed import is_first
    from coview.training.loop import fit
    from coview.training.outcome import next_steps
    from coview.training.start import start

    with waiting(_tell, "preparing"), listening(_tell):
        run = start(request)
    first = is_first()
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
        for line in next_steps(run):
            click.echo(line, err=True)


def _interrupted(run: Run) -> str:
    if run.saved_at is None:
        return f"Stopped before a checkpoint was saved. You can delete {run.path}."
    return (
        f"Stopped after step {run.saved_at}, checkpoint saved. "
        f"To continue: coview train --resume {shlex.quote(str(run.path))}"
    )


def _summary(run: Run) -> dict[str, Any]:
    from coview.training.outcome import verdict

    names = ("raw_pixels_knn_top1", "untrained_knn_top1", "knn_top1", "loss")
    values = {name: run.value(name) for name in names}
    return {"run": str(run.path), "steps": run.step, **values, "verdict": verdict(run)}


def _print_accuracies(run: Run) -> None:
    from coview.training.outcome import accuracies, verdict

    if (knn := run.value("knn")) is not None:
        click.echo(
            f"kNN top-1 (k = {knn['k']}, vote temperature {knn['temperature']}) on "
            f"{knn['test_images']} test images:"
        )
        print_table([(label, percent(share)) for label, share in accuracies(run)], indent="  ")
    for sentence in verdict(run):
        click.echo(sentence)
