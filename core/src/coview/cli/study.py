"""``coview study``: papers' claims as experiments with verdicts."""

from __future__ import annotations

from pathlib import Path

import click

from coview.commands import completing
from coview.commands.many import most_processes, processes_option, seconds
from coview.commands.options import device_option, json_option, print_json, print_table
from coview.registry import entries


@click.group("study")
def command() -> None:
    """Test papers' claims: train variants, compare, give a verdict."""


@command.command("list")
@json_option
def listing(as_json: bool) -> None:
    """List the studies that are installed, and what each of them tests."""
    from coview.cli.describe import description

    found = [(entry.name, entry.package, description(entry)) for entry in entries("studies")]
    if as_json:
        print_json([dict(zip(("name", "package", "claim"), row, strict=True)) for row in found])
        return
    print_table(found)


@command.command("run")
@click.argument("name", shell_complete=completing.studies)
@click.option(
    "--data",
    shell_complete=completing.datasets,
    help="Train on this data set instead of the study's own.",
)
@click.option(
    "--seeds",
    default=3,
    show_default=True,
    type=click.IntRange(1, 1_000),
    help="Seeds of each variant: 0, 1, ... The verdict needs at least two.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Train every variant for this long.")
@click.option(
    "--budget", help="Begin no new run after this time (90s, 10m, 2h); the same command goes on."
)
@click.option("--quick", is_flag=True, help="The study's short form: two seeds, a few epochs.")
@click.option(
    "--max-steps", type=click.IntRange(min=1), help="Stop each run after this many steps."
)
@processes_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("studies"),
    show_default=True,
    help="Folder of the results and of all runs; studies in it share runs that are the same.",
)
@device_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    name: str,
    data: str | None,
    seeds: int,
    epochs: int | None,
    budget: str | None,
    quick: bool,
    max_steps: int | None,
    processes: int | None,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Run a study to its verdict: NAME as `coview study list` has it, or FILE.py:NAME.

    After an interruption, or a kill, the same command goes on where it stopped and
    ends with the same table.
    """
    from coview.studies import Variant, find_study, report, running
    from coview.studies.jobs import Asked

    given = ctx.get_parameter_source("seeds") is not click.core.ParameterSource.DEFAULT
    asked = Asked(
        name=name,
        seeds=tuple(range(seeds if given or not quick else 2)),
        changes=Variant(data=data, epochs=epochs, max_steps=max_steps),
        quick=quick,
        device=device,
        out=out,
    )
    study = find_study(name)
    done = running.run(
        study,
        asked,
        processes or most_processes(device),
        None if budget is None else seconds("--budget", budget),
        lambda line: click.echo(line, err=True),
    )
    found = report.document(study, asked, done)
    files = report.write(study, found, out)
    if as_json:
        print_json(found)
        return
    click.echo(report.page(study, found))
    click.echo(f"Written: {', '.join(str(file) for file in files)}")
    if len(files) < 3:
        click.echo("For a picture: pip install matplotlib")
