"""``coview export``: write a backbone for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from coview.commands.options import json_option, print_json
from coview.commands.weights import weights_argument


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
    """Write a backbone for timm, torchvision, ONNX or torch.export.

    The file is read back and compared before it counts as written. Prints the lines of
    Python that load it in timm or torchvision.
    """
    from coview.api import export

    given = ctx.get_parameter_source("keys") is not click.core.ParameterSource.DEFAULT
    done = export(
        *(weights, out),
        format=format,
        keys=keys if given else None,
        backbone=backbone,
        pretrained=pretrained,
    )
    if as_json:
        print_json(done)
    else:
        click.echo(done)
