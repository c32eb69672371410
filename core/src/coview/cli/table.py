"""``coview evaluate table``: all evaluations of runs in one table."""

from __future__ import annotations

from pathlib import Path

import click

from coview.commands.options import json_option, print_json
from coview.errors import RequestError


@click.command("table")
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@json_option
def table(runs: tuple[Path, ...], as_json: bool) -> None:
    """Print all evaluations of runs, with protocol, epochs, seed and command, as Markdown."""
    if not runs:
        raise RequestError("Name at least one RUN.")
    from coview.evaluation.results import markdown, rows

    found = rows(runs)
    if as_json:
        print_json(found)
    elif not found:
        click.echo(
            "These runs have no evaluations yet. To add one: coview evaluate knn RUN", err=True
        )
    else:
        click.echo(markdown(found))
