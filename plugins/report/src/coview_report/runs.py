"""``coview runs``: every run under a folder, filtered, sorted, compared and removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from coview.commands.options import json_option, percent, print_json, print_table
from coview.errors import RequestError
from coview_report.index import Index, Row

MOST = 50
DEFAULT = Path("runs")
HEAD = ("run", "method", "data", "state", "epoch", "loss", "kNN top-1", "started")

folder_argument = click.argument(
    "folder", default=DEFAULT, type=click.Path(path_type=Path, file_okay=False)
)
where_option = click.option(
    "--where",
    default="",
    metavar="SQL",
    help="Only runs of which this holds, like \"method = 'byol' and knn_top1 > 0.8\", also "
    'settings of the recipe: "loss.temperature < 0.2".',
)


@click.group("runs")
def command() -> None:
    """List the runs under a folder, compare them, and remove some."""


@command.command("list")
@folder_argument
@where_option
@click.option(
    "--sort",
    default="",
    metavar="COLUMN",
    help="Sort by this; -COLUMN: the largest first.  [default: the newest first]",
)
@click.option(
    "-n",
    "--number",
    default=MOST,
    show_default=True,
    type=click.IntRange(min=0),
    help="List at most as many; 0: all.",
)
@json_option
def listing(folder: Path, where: str, sort: str, number: int, as_json: bool) -> None:
    """List runs: what was trained, how far, how well, and whether it goes on.

    FOLDER is searched with all folders below it.  [default: runs]
    """
    some, count = _rows(folder, where, sort, number)
    if as_json:
        print_json(some)
        return
    if some:
        print_table([HEAD, *map(_cells, some)])
    left = f", of which the first {len(some)} are listed (-n 0: all)" if len(some) < count else ""
    click.echo(f"{_count(count)}{left}", err=True)


@command.command("best")
@folder_argument
@where_option
@click.option(
    "--by",
    default="knn_top1",
    show_default=True,
    metavar="COLUMN",
    help="What decides; the largest is the best, of loss and seconds the smallest.",
)
@json_option
def best(folder: Path, where: str, by: str, as_json: bool) -> None:
    """Name the best finished run of each data set."""
    only = f"state = 'finished' and {by} is not null" + (f" and ({where})" if where else "")
    least = by in ("loss", "seconds")
    found: dict[Any, Row] = {}
    for row in _rows(folder, only, by if least else f"-{by}")[0]:
        found.setdefault(row["data"], row)
    if as_json:
        print_json(list(found.values()))
    elif not found:
        click.echo("No finished run here was measured.", err=True)
    else:
        print_table([HEAD, *map(_cells, found.values())])


@command.command("diff")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@json_option
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Compare two runs: the settings that differ, then the results."""
    from coview_report.difference import difference

    settings, results = difference(first, second)
    if as_json:
        print_json({"settings": settings, "results": results})
        return
    if not settings:
        click.echo("No setting differs.")
    for title, table in (("settings", settings), ("results", results)):
        if table:
            rows = [(name, _text(a), _text(b)) for name, (a, b) in table.items()]
            print_table([(title, str(first), str(second)), *rows])
            click.echo("")


@command.command("rm")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(runs: tuple[Path, ...], yes: bool) -> None:
    """Remove runs with all their files, after asking; a run that is being trained stays."""
    from coview.locks import is_held

    runs = tuple(dict.fromkeys(runs))
    gone = [f"There is no run at {run}." for run in runs if not (run / "run.json").is_file()]
    held = [f"{run} is being trained: stop it first." for run in runs if is_held(run / ".lock")]
    if gone or held:
        raise RequestError(*gone, *held)
    sizes = {run: sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) for run in runs}
    for run, size in sizes.items():
        click.echo(f"{run}  {size / 1e6:.1f} MB", err=True)
    if not yes:
        click.confirm(f"Remove {_count(len(runs))} for good?", abort=True, err=True)
    for run in runs:
        if run.is_symlink():
            run.unlink()  # the link that was named, not what others may still use
        else:
            shutil.rmtree(run)
    click.echo(f"Removed: {_count(len(runs))}", err=True)


def _rows(folder: Path, where: str, sort: str, limit: int = 0) -> tuple[list[Row], int]:
    index = Index(folder)
    try:
        return index.rows(where, sort, limit)
    finally:
        index.close()


def _count(number: int) -> str:
    return f"{number:,} run{'' if number == 1 else 's'}"


def _cells(row: Row) -> tuple[str, ...]:
    def cell(name: str, form: Callable[[Any], str] = str) -> str:
        return "-" if row[name] is None else form(row[name])

    return (
        row["run"],
        cell("method"),
        cell("data"),
        cell("state"),
        _epochs(row),
        cell("loss", lambda value: f"{value:.4g}"),
        cell("knn_top1", percent),
        cell("started", lambda time: time[:16].replace("T", " ")),
    )


def _epochs(row: Row) -> str:
    if row["epoch"] is None:
        return "-"
    planned = row["epochs"]
    of = f"/{planned}" if planned and row["epoch"] < planned else ""
    return f"{round(row['epoch'], 2):g}{of}"


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value))
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
