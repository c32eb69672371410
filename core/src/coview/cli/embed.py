"""``coview embed``: one embedding per image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands import completing
from coview.commands.endings import after_embedding, endings, words
from coview.commands.options import (
    data_help,
    device_option,
    json_option,
    on_bad_image_option,
    print_json,
)
from coview.commands.weights import computing, weights_argument
from coview.telling import listening
from coview.terminal import shown

FORMATS = (".csv", ".npy", ".npz", ".safetensors", ".parquet")


@click.command("embed")
@weights_argument
@click.option(
    "--data", shell_complete=completing.datasets, help=f"{data_help}  [default: the run's own]"
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help=f"File to write, ending in {', '.join(FORMATS)}.",
)
@click.option(
    "--split",
    type=click.Choice(["all", "train", "test"]),
    default="all",
    show_default=True,
    help="Images to embed; all: every image, in the data set's order.",
)
@click.option(
    "--batch-size",
    default=256,
    show_default=True,
    type=click.IntRange(min=1),
    help="Batch size for computing embeddings.",
)
@click.option(
    "--workers", default=0, type=click.IntRange(min=0), help="Processes that decode images."
)
@on_bad_image_option
@device_option
@json_option
def command(
    weights: Path, data: str | None, out: Path, split: str, as_json: bool, **options: Any
) -> None:
    """Write one embedding per image to a file.

    Labels, names and splits are written too, if the format allows.
    """
    click.echo(f"reading {shown(weights)}", err=True)
    from coview.api import embed

    with listening(lambda line: click.echo(line, err=True)):
        found = embed(weights, data, out=out, split=split, **computing(options))
    if as_json:
        print_json(found.facts)
        return
    click.echo(found)
    endings(after_embedding(found, out, words(weights, data, options)))
