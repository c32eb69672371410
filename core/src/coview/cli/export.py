"""``coview export``: write a backbone for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from coview.commands.options import json_option, print_json
from coview.commands.weights import found_weights, say, weights_argument
from coview.errors import RequestError


@click.command("export")
@weights_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--format",
    "format",
    type=click.Choice(["safetensors", "onnx", "torch-export"]),
    default="safetensors",
    show_default=True,
    help="safetensors: the backbone's tensors; the others: a program with preprocessing.",
)
@click.option(
    "--keys",
    type=click.Choice(["timm", "torchvision"]),
    default="timm",
    show_default=True,
    help="Name tensors as this library does (safetensors).",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    weights: Path,
    out: Path,
    format: str,
    keys: str,
    as_json: bool,
    backbone: str | None,
    pretrained: bool,
) -> None:
    """Write a backbone for other programs, then read it back and compare.

    Prints the lines of Python that load the file in timm or torchvision.
    """
    given = ctx.get_parameter_source("keys") is not click.core.ParameterSource.DEFAULT
    if format != "safetensors" and given:
        raise RequestError("--keys is only for --format safetensors: leave it out.")
    from coview.weights.convert import ship
    from coview.weights.elsewhere import loading

    found = found_weights(weights, backbone, pretrained)
    say(found.notes)
    exported = found.network
    difference = ship(exported, out, format, keys)
    how = loading(exported, out, format, keys)
    card = exported.card
    if as_json:
        facts = {key: exported.meta[key] for key in ("backbone", "channels", "size", "mean", "std")}
        print_json(
            {
                "out": str(out),
                "format": format,
                "keys": keys if format == "safetensors" else None,
                "width": exported.width,
                "difference": difference,
                "note": how.note,
                "load": list(how.lines),
                **facts,
            }
        )
        return
    if how.note:
        click.echo(how.note)
    for line in how.lines:
        click.echo(f"  {line}")
    click.echo(f"{out}: {card.backbone}, {exported.width} features, as {format}")
    if format == "safetensors":
        click.echo(
            f"Its input: images of {card.size} pixels with {card.channels} channels in [0, 1], "
            f"{_normalisation(card.mean, card.std)}."
        )
    click.echo(f"When read back, its features differ by {difference:.1e}.")


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> str:
    if not any(mean) and all(value == 1 for value in std):
        return "no mean/std normalisation"
    return f"normalised with mean {_short(mean)} and std {_short(std)}"


def _short(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
