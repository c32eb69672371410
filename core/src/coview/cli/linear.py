"""``coview evaluate linear``: a linear classifier on the frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands.weights import Opened, data_option, measuring, opened, weights_argument
from coview.errors import RequestError

OPTIONS = {"batch_size": "head_batch_size"}
"""Names on the command line of a protocol's settings, where they differ."""


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
    protocol: str,
    rates: tuple[float, ...],
    decays: tuple[float, ...],
    epochs: int | None,
    head_batch_size: int | None,
    seed: int,
    save: Path | None,
    batch_size: int,
    workers: int,
    device: str,
    as_json: bool,
    backbone: str | None,
    pretrained: bool,
) -> None:
    """Measure the accuracy of a linear classifier on the frozen backbone.

    By default, features are computed once, and learning rate and weight decay
    are chosen from a grid on a tenth of the training images.
    """
    if protocol != "grid" and max(len(rates), len(decays)) > 1:
        raise RequestError("Only --protocol grid accepts several values of --lr or --weight-decay.")
    found = opened(weights, data, device, workers, backbone, pretrained)
    common: dict[str, Any] = {
        "seed": seed,
        "batch_size": batch_size,
        "device": found.device,
        "workers": workers,
        "save": save,
    }
    if protocol == "grid":
        result = _grid(found, rates, decays, epochs, head_batch_size, common)
    else:
        changes = {
            "lr": next(iter(rates), None),
            "weight_decay": next(iter(decays), None),
            "epochs": epochs,
            "batch_size": head_batch_size,
        }
        result = _published(found, protocol, changes, common)
    found.answer("linear", result, as_json, lambda: sentence("Linear", result, found.data.name))


def _grid(
    found: Opened,
    rates: tuple[float, ...],
    decays: tuple[float, ...],
    epochs: int | None,
    head_batch_size: int | None,
    common: dict[str, Any],
) -> dict[str, Any]:
    from coview.evaluation.linear import LEARNING_RATES, WEIGHT_DECAYS, evaluate_linear

    return evaluate_linear(
        found.backbone,
        found.data,
        learning_rates=rates or LEARNING_RATES,
        weight_decays=decays or WEIGHT_DECAYS,
        epochs=epochs or 100,
        head_batch_size=head_batch_size or 256,
        **common,
    ).as_dict()


def _published(
    found: Opened, name: str, changes: dict[str, Any], common: dict[str, Any]
) -> dict[str, Any]:
    from coview.evaluation.published import find_probe
    from coview.optim.protocols import Protocol, changed

    way, settings = find_probe(name, found.backbone.card)
    given = {key: value for key, value in changes.items() if value is not None}
    if isinstance(settings, Protocol):
        settings = changed(settings, **given)
    elif given:
        listed = ", ".join(f"--{OPTIONS.get(key, key).replace('_', '-')}" for key in given)
        raise RequestError(f"This protocol does not train in steps: leave out {listed}.")
    result: dict[str, Any] = way.probe(found.backbone, found.data, settings, **common).as_dict()
    return result


def sentence(what: str, result: dict[str, Any], data: str) -> str:
    """Format an accuracy and its protocol for people."""
    from coview.evaluation.metrics import percentages

    how = f"C = {result['cost']:g}" if "cost" in result else _training(result)
    return (
        f"{what} {percentages(result)} on {data} ({result['protocol']}, {how}, "
        f"{result['train_images']} training and {result['test_images']} test images)"
    )


def _training(result: dict[str, Any]) -> str:
    if "lr" not in result:
        return "not trained in steps"
    return (
        f"lr {result['lr']:g}, weight decay {result['weight_decay']:g}, "
        f"{result['epochs']} epochs, batch {result['batch_size']}"
    )
