"""``coview evaluate table``: whose numbers are better."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from coview.commands import completing
from coview.commands.options import json_option, print_json
from coview.errors import RequestError

NARROWEST = 72
"""Columns that a table needs to be read."""


@click.command("table")
@click.argument(
    "runs",
    metavar="RUN...",
    nargs=-1,
    type=click.Path(path_type=Path),
    shell_complete=completing.runs,
)
@click.option("--each", is_flag=True, help="A line for each run, also if only the seed differs.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@json_option
def table(runs: tuple[Path, ...], each: bool, as_markdown: bool, as_json: bool) -> None:
    """Compare runs: their accuracies, and how their settings differ.

    The best is first. Runs that differ by their seed alone are one line. Only accuracies by
    the same protocol on the same test images stand under each other.
    """
    if not runs:
        raise RequestError("Name at least one RUN.")
    if as_markdown and as_json:
        raise RequestError("Give --markdown or --json, not both.")
    from coview.evaluation.comparison import as_rows, compare
    from coview.evaluation.results import rows
    from coview.evaluation.tables import markdown, text

    runs = tuple(dict.fromkeys(runs))
    found = rows(runs)
    if as_json:
        print_json(as_rows(runs, found))
    elif not found:
        click.echo(
            "These runs have no evaluations yet. To add one: coview evaluate knn RUN", err=True
        )
    else:
        compared = compare(runs, found, each)
        width = max(NARROWEST, shutil.get_terminal_size().columns)
        click.echo(markdown(compared) if as_markdown else text(compared, width))
