"""``coview views``: a picture of a recipe's views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands.endings import again, endings
from coview.commands.options import changes_from, data_help, json_option, print_json, recipe_options


@click.command("views")
@click.argument("method", metavar="METHOD_OR_FILE")
@click.option("--data", default="digits", show_default=True, help=data_help)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="PNG file to write.")
@click.option(
    "--images",
    default=8,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Number of images, one per row.",
)
@click.option(
    "--draws",
    default=2,
    show_default=True,
    type=click.IntRange(1, 16),
    help="Times that the views of each image are drawn.",
)
@click.option("--seed", default=0, show_default=True, type=int, help="Random seed.")
@recipe_options
@json_option
def command(
    method: str,
    data: str,
    out: Path,
    images: int,
    draws: int,
    seed: int,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Draw a few images (first column) and the views that a recipe makes of them."""
    from coview.api.picture import picture

    changes = changes_from(uses, settings, **dict(shortcuts))
    drawn = picture(
        *(method, data, out, changes),
        images=images,
        draws=draws,
        seed=seed,
        layer="command line",
    )
    if as_json:
        print_json(drawn)
        return
    click.echo(drawn)
    endings([f"next: {again(('train', method, '--data', data), uses, settings, shortcuts)}"])
