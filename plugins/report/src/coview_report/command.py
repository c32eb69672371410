"""``coview report``: one page about a run, or about several beside each other."""

from __future__ import annotations

from pathlib import Path

import click

from coview.commands.options import device_option, json_option, print_json
from coview.errors import RequestError


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: report.html in the run, or here for several runs]",
)
@click.option(
    "--no-pictures",
    is_flag=True,
    help="Only what the run's files record: no map, neighbours or views, which need the data.",
)
@click.option(
    "--workers", default=0, show_default=True, help="Processes that decode images.", type=int
)
@click.option(
    "--serve",
    is_flag=True,
    help="Follow the run in a browser on this machine: the page is made anew as the run goes on.",
)
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), help="With --serve.  [default: a free one]"
)
@device_option
@json_option
def command(
    runs: tuple[Path, ...],
    out: Path | None,
    no_pictures: bool,
    workers: int,
    serve: bool,
    port: int,
    device: str,
    as_json: bool,
) -> None:
    """Draw a page about a run: verdict, curves, a map of the embeddings, neighbours, views, recipe.

    The page is one file that opens from disk and asks no network for anything. Several runs are
    compared: their settings that differ, their results and their curves together.
    """
    if serve:
        if len(runs) > 1 or out is not None or as_json:
            raise RequestError("--serve follows one RUN, without --out or --json.")
        _serve(runs[0], port, not no_pictures, device, workers)
        return
    from coview_report.making import make

    made = make(runs, out, pictures=not no_pictures, device=device, workers=workers)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json({"out": str(made.path), "bytes": made.bytes, "notes": list(made.notes)})
    else:
        click.echo(f"report: {made.path}")


def _serve(run: Path, port: int, pictures: bool, device: str, workers: int) -> None:
    from coview_report.reading import read
    from coview_report.serving import Live, served

    read(run)  # there is one
    server, address = served(Live(run, pictures, device, workers), port)
    click.echo(address)
    click.echo("This address works on this machine alone. Ctrl-C ends it.", err=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        server.server_close()
