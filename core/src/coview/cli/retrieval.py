"""``coview evaluate retrieval``: search for similar images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands import completing
from coview.commands.endings import measured
from coview.commands.options import data_help
from coview.commands.weights import measuring, weights_argument


@click.command("retrieval")
@weights_argument
@click.option(
    "--data",
    shell_complete=completing.datasets,
    help=f"{data_help} Its test images are queries in its training images.",
)
@click.option("--query", metavar="DATA", help="Use all images of this data set as queries.")
@click.option(
    "--gallery", metavar="DATA", help="Search all images of this data set, which may be --query's."
)
@click.option(
    "--match",
    type=click.Choice(["label", "name"]),
    default="label",
    show_default=True,
    help="Images match by class (label), or by file name without folder and ending (name).",
)
@click.option(
    "-k",
    "ks",
    multiple=True,
    default=(1, 5, 10),
    show_default=True,
    type=click.IntRange(min=1),
    help="Report recall@k. Repeatable.",
)
@measuring
def retrieval(weights: Path, data: str | None, ks: tuple[int, ...], **options: Any) -> None:
    """Measure image search: recall@k and mean average precision."""
    settings = {name: options[name] for name in ("query", "gallery", "match")}
    measured("retrieval", weights, data, options, settings | {"k": ks})
