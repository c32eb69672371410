"""``coview export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from coview.commands.options import json_option, print_json
from coview.commands.weights import found_weights, say, weights_argument
from coview.errors import RequestError

EXAMPLE = """\b
To load the tensors:
  net = timm.create_model("resnet50", num_classes=0)
  net.load_state_dict(safetensors.torch.load_file("resnet50.safetensors"))
"""


@click.command("export", epilog=EXAMPLE)
@weights_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--format",
    "format",
    type=click.Choice(["safetensors", "onnx", "torch-export"]),
    default="safetensors",
    show_default=True,
    help="safetensors: the backbone's tensors; the others: a program, preprocessing included.",
)
@click.option(
    "--keys",
    type=click.Choice(["timm", "torchvision"]),
    default="timm",
    show_default=True,
    help="Whose names tensors have (safetensors).",
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
    """Write a run's backbone for other programs; it is read again and compared."""
    given = ctx.get_parameter_source("keys") is not click.core.ParameterSource.DEFAULT
    if format != "safetensors" and given:
        raise RequestError("--keys names tensors, which only --format safetensors has.")
    from coview.weights.convert import ship

    found = found_weights(weights, backbone, pretrained)
    say(found.notes)
    exported = found.network
    difference = ship(exported, out, format, keys)
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
                **facts,
            }
        )
        return
    click.echo(f"{out}: {card.backbone}, {exported.width} features, as {format}")
    if format == "safetensors":
        click.echo(
            f"It takes images of {card.size} pixels, {card.channels} channels in [0, 1], "
            f"less {_short(card.mean)}, divided by {_short(card.std)}."
        )
    click.echo(f"Read again, its features differ by {difference:.1e}.")


def _short(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
