"""``coview neighbours``: the images nearest to others, as a list and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands.options import print_json
from coview.commands.weights import computing, data_option, measuring, weights_argument


@click.command("neighbours")
@weights_argument
@click.option(
    "--query",
    "queries",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE_OR_FOLDER",
    help="A photograph to look for, or a folder of them. Repeatable.  [default: some of the "
    "data's test images, if any]",
)
@data_option
@click.option(
    "-k", default=5, show_default=True, type=click.IntRange(min=1), help="Neighbours of each."
)
@click.option(
    "--images",
    default=8,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Number of images to look for, without --query.",
)
@click.option(
    "--mistakes",
    is_flag=True,
    help="Look at test images whose neighbours vote for another class, the surest first.",
)
@click.option(
    "--out",
    default="neighbours.png",
    show_default=True,
    type=click.Path(path_type=Path),
    help="PNG file to write.",
)
@measuring
def command(
    weights: Path,
    queries: tuple[Path, ...],
    data: str | None,
    k: int,
    images: int,
    mistakes: bool,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the most similar images by their features, and draw them.

    In the picture a row is a query, then the images nearest to it, each with its similarity
    (the cosine of the features) and its class. A green frame is the query's own class, a red
    one another.
    """
    from coview.api import neighbours

    found = neighbours(
        weights,
        queries or None,
        data,
        k,
        images=images,
        mistakes=mistakes,
        out=out,
        **computing(options),
    )
    if as_json:
        print_json({"out": str(out), **found.as_dict()})
        return
    click.echo(repr(found))
    click.echo(f"picture: {out}", err=True)
