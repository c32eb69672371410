"""``coview evaluate finetune``: train the whole network with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands.endings import measured
from coview.commands.weights import data_option, measuring, weights_argument


@click.command("finetune")
@weights_argument
@data_option
@click.option(
    "--labels",
    default="100%",
    show_default=True,
    metavar="SHARE",
    help="Training labels to use: 1%, 10%, ... or N-per-class.",
)
@click.option(
    "--from",
    "start",
    default="head.0",
    show_default=True,
    metavar="head.N",
    help="Keep the first N layers of the run's projection head; 0: only the backbone.",
)
@click.option(
    "--protocol",
    metavar="NAME",
    help="Settings to use: paper (published by the run's method) or a method's name.  "
    "[default: paper, or coview's own if none are published]",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate of all layers, at a batch size of 256.  [default: as published]",
)
@click.option(
    "--head-lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate of the new classifier, if different.",
)
@click.option(
    "--layer-decay",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Each layer's learning rate is this times that of the layer above.",
)
@click.option(
    "--weight-decay", type=click.FloatRange(min=0), help="Weight decay.  [default: as published]"
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the labelled images.  [default: as published]",
)
@click.option(
    "--train-batch-size",
    type=click.IntRange(min=1),
    help="Batch size in training.  [default: as published]",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write backbone and classifier to a file, for example as a teacher for distillation.",
)
@click.option("--seed", default=0, show_default=True, help="Random seed, also of the subset.")
@measuring
def finetune(weights: Path, data: str | None, **options: Any) -> None:
    """Train the whole network with labels, and measure its accuracy."""
    names = (
        *("labels", "start", "protocol", "lr", "head_lr", "layer_decay", "weight_decay"),
        *("epochs", "train_batch_size", "save", "seed"),
    )
    measured("finetune", weights, data, options, {name: options[name] for name in names})
