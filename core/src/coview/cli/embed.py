"""``coview embed``: one embedding per image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands.options import (
    data_help,
    device_option,
    json_option,
    on_bad_image_option,
    print_json,
)
from coview.commands.weights import (
    data_of,
    found_weights,
    load_like,
    say,
    tell_bad_images,
    weights_argument,
)
from coview.errors import CoviewError, RequestError, unknown

if TYPE_CHECKING:
    import numpy as np

FORMATS = (".npy", ".npz", ".safetensors", ".parquet")


@click.command("embed")
@weights_argument
@click.option("--data", help=f"{data_help}  [default: the run's own]")
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
    weights: Path,
    data: str | None,
    out: Path,
    split: str,
    batch_size: int,
    workers: int,
    device: str,
    as_json: bool,
    backbone: str | None,
    pretrained: bool,
) -> None:
    """Write one embedding per image; with labels, names and splits if the format allows."""
    if out.suffix not in FORMATS:
        raise RequestError(unknown("format", out.suffix or out.name, FORMATS))
    from coview.evaluation.embeddings import embed, missing, write
    from coview.training.device import pick_device

    place = pick_device(device)
    found = found_weights(weights, backbone, pretrained)
    loaded = load_like(data or data_of(weights), found.network.card, workers)
    say(found.notes)
    table: dict[str, np.ndarray[Any, Any]] = embed(
        found.network.to(place), loaded, split, batch_size=batch_size, device=place, workers=workers
    )
    try:
        write(out, table)
    except ImportError as error:
        raise CoviewError(f"{out.suffix} needs pyarrow: pip install pyarrow") from error
    images, width = table["embeddings"].shape
    bad = tell_bad_images(loaded)
    if gone := missing(table):
        bad["missing_rows"] = gone
        click.echo(f"Rows of NaN stand for them: {', '.join(map(str, gone[:10]))}", err=True)
    if as_json:
        facts = {"out": str(out), "images": images, "width": width, "columns": list(table)}
        print_json({**facts, **({} if found.origin is None else {"origin": found.origin}), **bad})
    else:
        click.echo(f"{images} embeddings of width {width} in {out}")
