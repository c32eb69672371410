"""``coview sweep``: many runs, to find the settings that are best."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands.options import json_option, print_json, print_table
from coview.errors import RequestError

if TYPE_CHECKING:
    import optuna

    from coview_sweep.spec import Spec

EXAMPLES = """\b
Examples:
  coview sweep simclr --grid optimizer.lr=0.1,0.2 --range loss.temperature=0.05..1:log \\
      -- --data photos --epochs 50
  coview sweep sweep.toml --workers 2
  coview sweep sweeps/simclr      (goes on with the sweep in this folder)
"""


@click.command("sweep", epilog=EXAMPLES)
@click.argument("spec", metavar="METHOD_OR_FILE_OR_FOLDER")
@click.argument("train", metavar="[-- OPTIONS_OF_TRAIN...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--grid", multiple=True, metavar="NAME=A,B,...", help="Try these values. Repeatable.")
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=LOW..HIGH[:log]",
    help="Try numbers in this range, of logarithms with :log. Repeatable.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    help="Number of runs.  [default: the whole grid; 20 with a range]",
)
@click.option(
    "--sampler",
    type=click.Choice(["grid", "random", "tpe"]),
    help="How settings are chosen.  [default: grid; tpe with a range]",
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "none"]),
    help="End runs early that are below the median of the others at the same step.  "
    "[default: median]",
)
@click.option("--metric", help="What is compared.  [default: online_probe_top1]")
@click.option("--minimize", is_flag=True, help="Less of the metric is better.")
@click.option("--seed", type=int, help="Random seed of the choice of settings.  [default: 0]")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Runs at a time."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The sweep's folder.  [default: sweeps/NAME]"
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    spec: str,
    train: tuple[str, ...],
    grid: tuple[str, ...],
    ranges: tuple[str, ...],
    workers: int,
    out: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a method with many settings, and tell which are best.

    Each trial is a run of its own, and its online probe is compared. A sweep that was interrupted
    or killed goes on where it was: its finished trials are kept, and the others go on from
    their last checkpoint.
    """
    asked = _asked(spec, train, grid, ranges, chosen)
    folder = out or (Path(spec) if asked is None else Path("sweeps") / Path(spec).stem)
    from coview_sweep.sweep import Stopped, opened, run

    found, study = opened(folder, asked)
    try:
        run(folder, found, study, workers, lambda text: click.echo(text, err=True))
    except Stopped:
        click.echo(
            "Stopped; every trial is saved. To go on: coview sweep "
            f"{shlex.quote(str(folder))}" + (f" --workers {workers}" if workers > 1 else ""),
            err=True,
        )
        ctx.exit(1)
    if as_json:
        print_json(document(folder, found, study))
    else:
        _print(folder, found, study)


def _asked(
    spec: str,
    train: tuple[str, ...],
    grid: tuple[str, ...],
    ranges: tuple[str, ...],
    chosen: dict[str, Any],
) -> Spec | None:
    """Return the sweep that is asked for; None: the one that a folder has."""
    from coview_sweep.spec import Spec, listed, pairs, read

    given = {
        "grid": {name: listed(text) for name, text in pairs("--grid", grid).items()},
        "range": pairs("--range", ranges),
        "train": list(train),
        **chosen,
    }
    given = {name: value for name, value in given.items() if value not in (None, False, {}, [])}
    path = Path(spec)
    if path.is_dir():
        if given:
            words = ", ".join(sorted(given))
            raise RequestError(f"{spec} is a sweep that goes on as it was: leave out {words}.")
        return None
    if path.suffix == ".toml" and path.is_file() and _is_sweep(values := read(path)):
        return Spec.of({**values, **given}, spec)
    return Spec.of({"method": spec, **given}, "the sweep")


def _is_sweep(values: dict[str, Any]) -> bool:
    """Whether a TOML file is a sweep; else it is a recipe."""
    return "method" in values


def document(folder: Path, spec: Spec, study: optuna.Study) -> dict[str, Any]:
    """Return what a sweep found, as plain values."""
    from coview_sweep.sweep import place, ranked

    trials = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "settings": trial.params,
            "run": str(place(folder, trial.number)),
            "command": spec.command(trial.params),
        }
        for trial in ranked(spec, study)
    ]
    best = trials[0] if trials and trials[0]["state"] == "complete" else None
    return {"metric": spec.metric, "best": best, "trials": trials}


def _print(folder: Path, spec: Spec, study: optuna.Study) -> None:
    found = document(folder, spec, study)
    names = [*spec.grid, *spec.range]
    rows = [("trial", spec.metric, *names, "")]
    for trial in found["trials"]:
        value = "" if trial["value"] is None else f"{trial['value']:.4f}"
        settings = (trial["settings"].get(name, "") for name in names)
        cells = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in settings)
        state = {"complete": "", "pruned": "ended early", "fail": "failed"}.get(trial["state"])
        rows.append((str(trial["trial"]), value, *cells, state or ""))
    print_table(rows)
    best = found["best"]
    if best is None:
        click.echo("No trial came to its end.")
        return
    click.echo(f"best: trial {best['trial']}, {spec.metric} {best['value']:.4f}: {best['run']}")
    click.echo(f"again: {best['command']}")
