"""``coview evaluate linear``: a linear classifier on the frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands.endings import measured
from coview.commands.weights import data_option, measuring, weights_argument


@click.command("linear")
@weights_argument
@data_option
@click.option(
    "--protocol",
    default="grid",
    show_default=True,
    metavar="NAME",
    help="grid: search settings on features computed once; paper: the published probe of the "
    "run's method; or a method's name, for its probe.",
)
@click.option(
    "--lr",
    "rates",
    multiple=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate at a batch size of 256. Repeatable with grid.",
)
@click.option(
    "--weight-decay",
    "decays",
    multiple=True,
    type=click.FloatRange(min=0),
    help="Weight decay. Repeatable with grid.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the training images.  [default: 100, or as published]",
)
@click.option(
    "--head-batch-size",
    type=click.IntRange(min=1),
    help="Batch size in training the classifier.  [default: 256, or as published]",
)
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write backbone and classifier to a file, for example as a teacher for distillation.",
)
@measuring
def linear(
    weights: Path,
    data: str | None,
    rates: tuple[float, ...],
    decays: tuple[float, ...],
    **options: Any,
) -> None:
    """Measure a linear classifier on the frozen backbone.

    By default, features are computed once, and learning rate and weight decay
    are chosen from a grid on a tenth of the training images.
    """
    settings = {"lr": rates or None, "weight_decay": decays or None}
    names = ("protocol", "epochs", "head_batch_size", "seed", "save")
    measured("linear", weights, data, options, settings | {name: options[name] for name in names})
