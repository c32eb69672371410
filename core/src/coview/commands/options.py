"""What several commands share: options, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

AnyCommand = Callable[..., Any]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
_ON_BAD_IMAGE = "coview.on_bad_image"
bad_images_help = (
    "Of an image that cannot be read: skip (count and name it, up to 1 %) or stop.  [default: skip]"
)
on_bad_image_option = click.option(
    "--on-bad-image",
    type=click.Choice(["skip", "stop"]),
    expose_value=False,
    callback=lambda ctx, _, value: ctx.meta.update({_ON_BAD_IMAGE: value}),
    help=bad_images_help,
)


def on_bad_image() -> str:
    """Return what the running command's ``--on-bad-image`` says."""
    ctx = click.get_current_context(silent=True)
    return (ctx.meta.get(_ON_BAD_IMAGE) if ctx else None) or "skip"


data_help = "SOURCE[:PATH]: digits, idx:DIR, cifar10, ..., or the path of a folder of images."


def recipe_options(function: AnyCommand) -> AnyCommand:
    """Add the options that change a recipe."""
    for option in reversed(
        (
            click.option("--epochs", type=int, help="Passes over the training set."),
            click.option("--batch-size", type=int, help="Images an optimiser step (global)."),
            click.option("--accumulate", type=int, help="Micro-batches an optimiser step."),
            click.option("--backbone", help="A registered or timm name."),
            click.option("--image-size", type=int, help="Pixels a side that the loader delivers."),
            click.option("--preset", help="By name, or none; chosen by image size if not given."),
            click.option(
                "--use", "uses", multiple=True, metavar="ROLE=COMPONENT", help="Repeatable."
            ),
            click.option(
                "--set", "settings", multiple=True, metavar="ROLE.KEY=VALUE", help="Repeatable."
            ),
        )
    ):
        function = option(function)
    return function


def changes_from(
    uses: Sequence[str],
    settings: Sequence[str],
    **shortcuts: Any,
) -> Any:
    """Return the changes that the recipe options stand for."""
    from coview.recipes.configure import Changes, parse_set, parse_use

    return Changes(use=parse_use(uses), set=parse_set(settings), **shortcuts)


def print_json(value: Any) -> None:
    """Print the command's one JSON document."""
    click.echo(json.dumps(value, indent=2))


def print_table(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Print rows in columns as wide as they need to be."""
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo((indent + "  ".join(cells)).rstrip())


def percent(share: float) -> str:
    """Write an accuracy, 0.9812 -> ``98.1 %``."""
    return f"{100 * share:.1f} %"
