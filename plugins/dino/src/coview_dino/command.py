"""``coview attention``: a picture of where a transformer looks."""

from __future__ import annotations

from pathlib import Path

import click

from coview.commands.options import device_option, json_option, print_json


@click.command("attention")
@click.argument("weights", metavar="RUN_OR_WEIGHTS", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="SOURCE[:PATH], or the path of a folder of images.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="PNG file to write.")
@click.option("--images", default=4, show_default=True, type=click.IntRange(1, 64))
@click.option("--image-size", type=click.IntRange(1), help="Pixels per side; default: the data's.")
@click.option(
    "--keep",
    default=0.6,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the attention inside the mask.",
)
@device_option
@json_option
def command(
    weights: Path,
    data: str,
    out: Path,
    images: int,
    image_size: int | None,
    keep: float,
    device: str,
    as_json: bool,
) -> None:
    """Draw the attention maps of a transformer.

    For a few images: the last block's maps, one per head, and their mask.
    """
    import torch

    from coview.data.base import DataSettings
    from coview.data.loader import read_batches
    from coview.data.sources import open_source
    from coview.training.device import pick_device
    from coview.weights.exported import load_backbone
    from coview_dino.attention import draw_attention

    exported = load_backbone(weights).to(pick_device(device))
    settings = DataSettings(**{**exported.card.loading(), "size": image_size})
    loaded = open_source(data).load(settings, 0)
    count = min(images, len(loaded.train))
    chosen = next(read_batches(loaded.train, [torch.arange(count)]))
    facts = draw_attention(exported, chosen, out, image_size, keep)
    if as_json:
        print_json({"out": str(out), "images": count, **facts})
    else:
        click.echo(
            f"Attention maps of {facts['heads']} heads and the mask, for {count} images: {out}"
        )
