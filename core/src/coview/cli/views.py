"""``coview views``: a picture of a recipe's or a run's views."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from coview.commands import completing
from coview.commands.endings import again, endings
from coview.commands.options import changes_from, data_help, json_option, print_json, recipe_options


@click.command("views")
@click.argument("method", metavar="METHOD_OR_FILE_OR_RUN", shell_complete=completing.methods)
@click.option(
    "--data",
    shell_complete=completing.datasets,
    help=f"{data_help}  [default: the run's own, else digits]",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="PNG file to write.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="Also write a page of HTML: one file that needs nothing else.",
)
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
@click.option("--seed", type=int, help="Random seed.  [default: the run's own, else 0]")
@recipe_options
@json_option
def command(
    method: str,
    data: str | None,
    out: Path,
    html: Path | None,
    images: int,
    draws: int,
    seed: int | None,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Draw a few images and the views that are made of them.

    The views are those of a recipe, or of a run, at their own sizes, with what was done to the
    image below each; its crop is outlined in the image in the colour of the view's frame. The
    images are of as many classes as there are.
    """
    from coview.api.picture import picture

    changes = changes_from(uses, settings, **dict(shortcuts))
    drawn = picture(
        *(method, data, out, changes),
        html=html,
        images=images,
        draws=draws,
        seed=seed,
        layer="command line",
    )
    if as_json:
        print_json(drawn)
        return
    click.echo(drawn)
    if (Path(method) / "run.json").is_file():
        endings([f"next: coview neighbours {shlex.quote(method)}"])
        return
    trained = ("train", method, "--data", data or "digits")
    endings([f"next: {again(trained, uses, settings, shortcuts)}"])
