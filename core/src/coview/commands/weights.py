"""Options and helpers shared by commands that evaluate or export weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands import completing
from coview.commands.options import (
    AnyCommand,
    asked_of_data,
    data_help,
    device_option,
    json_option,
    on_bad_image,
    on_bad_image_option,
)

if TYPE_CHECKING:
    from coview.data.base import ImageData
    from coview.weights.card import WeightCard


def weights_argument(function: AnyCommand) -> AnyCommand:
    """Add the argument that names weights, and the options that some names need."""
    for add in (
        click.option(
            "--backbone",
            metavar="NAME",
            help="Architecture of a checkpoint that coview did not write, for example resnet50; or "
            "what makes a network of your own, FILE.py:FUNCTION or MODULE:FUNCTION.",
        ),
        click.option(
            "--pretrained",
            is_flag=True,
            help="For timm:NAME: load timm's published weights, downloading them if needed.",
        ),
        click.argument(
            "weights",
            metavar="RUN_OR_WEIGHTS",
            type=click.Path(path_type=Path),
            shell_complete=completing.runs,
        ),
    ):
        function = add(function)
    return function


def measuring(function: AnyCommand) -> AnyCommand:
    """Add the options of a command that evaluates weights on data."""
    for option in reversed(
        (
            click.option(
                "--batch-size",
                default=256,
                show_default=True,
                type=click.IntRange(min=1),
                help="Batch size for computing features.",
            ),
            click.option(
                "--workers",
                default=0,
                type=click.IntRange(min=0),
                help="Processes that decode images.",
            ),
            on_bad_image_option,
            device_option,
            json_option,
        )
    ):
        function = option(function)
    return function


data_option = click.option(
    "--data", shell_complete=completing.datasets, help=f"{data_help}  [default: the run's own]"
)


def computing(options: dict[str, Any]) -> dict[str, Any]:
    """Return a command's options of :func:`measuring` as arguments of ``coview.evaluate``."""
    names = ("batch_size", "workers", "device", "backbone", "pretrained")
    more = {"on_bad_image": on_bad_image(), "set": asked_of_data()}
    return {**more, **{name: options[name] for name in names}}


def load_like(data: str, meta: WeightCard | Mapping[str, Any], workers: int) -> ImageData:
    """Load data as a backbone's training did: same size, channels and meaning of values."""
    from coview.evaluation.subject import load_like as load
    from coview.weights.card import WeightCard

    asked = {"on_bad_image": on_bad_image(), **asked_of_data()}
    return load(data, WeightCard.of(meta), workers=workers, **asked)
