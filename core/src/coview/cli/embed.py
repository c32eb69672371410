"""``coview embed``: one embedding an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands.options import data_help, device_option, json_option, print_json
from coview.commands.weights import data_of, load_like
from coview.errors import CoviewError, RequestError, unknown

if TYPE_CHECKING:
    import numpy as np

FORMATS = (".npy", ".npz", ".safetensors", ".parquet")


@click.command("embed")
@click.argument("weights", metavar="RUN_OR_WEIGHTS", type=click.Path(path_type=Path))
@click.option("--data", help=f"{data_help} Default: the run's own.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help=f"A file ending in {', '.join(FORMATS)}.",
)
@click.option(
    "--split",
    type=click.Choice(["all", "train", "test"]),
    default="all",
    show_default=True,
    help="all: in the data set's order.",
)
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1))
@click.option("--workers", default=0, type=click.IntRange(min=0))
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
) -> None:
    """Write one embedding an image, with labels, names and splits where the format holds them."""
    if out.suffix not in FORMATS:
        raise RequestError(unknown("format", out.suffix or out.name, FORMATS))
    from coview.evaluation.embeddings import embed, write
    from coview.evaluation.exported import load_backbone
    from coview.training.device import pick_device

    place = pick_device(device)
    backbone = load_backbone(weights).to(place)
    loaded = load_like(data or data_of(weights), backbone.meta, workers)
    table: dict[str, np.ndarray[Any, Any]] = embed(
        backbone, loaded, split, batch_size=batch_size, device=place, workers=workers
    )
    try:
        write(out, table)
    except ImportError as error:
        raise CoviewError(f"{out.suffix} needs pyarrow: pip install coview[parquet]") from error
    images, width = table["embeddings"].shape
    if as_json:
        print_json({"out": str(out), "images": images, "width": width, "columns": list(table)})
    else:
        click.echo(f"{images} embeddings of width {width} in {out}")
