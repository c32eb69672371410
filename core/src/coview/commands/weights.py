"""What commands that measure or ship weights share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from coview.commands.options import AnyCommand, data_help, device_option, json_option, print_json
from coview.errors import RequestError

if TYPE_CHECKING:
    import torch

    from coview.data.base import ImageData
    from coview.evaluation.exported import ExportedBackbone

weights_argument = click.argument(
    "weights", metavar="RUN_OR_WEIGHTS", type=click.Path(path_type=Path)
)


def measuring(function: AnyCommand) -> AnyCommand:
    """Add the options of a command that measures weights on data."""
    for option in reversed(
        (
            click.option(
                "--batch-size",
                default=256,
                show_default=True,
                type=click.IntRange(min=1),
                help="Images through the network at once.",
            ),
            click.option(
                "--workers",
                default=0,
                type=click.IntRange(min=0),
                help="Processes that decode images.",
            ),
            device_option,
            json_option,
        )
    ):
        function = option(function)
    return function


data_option = click.option("--data", help=f"{data_help} Default: the run's own.")


@attrs.frozen(eq=False)
class Opened:
    """Weights on a device and the data to measure them on."""

    weights: Path
    backbone: ExportedBackbone
    data: ImageData
    device: torch.device

    def answer(
        self, evaluation: str, result: dict[str, Any], as_json: bool, text: Callable[[], str]
    ) -> None:
        """Keep a result with the run, and print it."""
        from coview.evaluation.results import remember

        document = {"weights": str(self.weights), "data": self.data.name, **result}
        remember(self.weights, {"evaluation": evaluation, **document}, sys.argv)
        if as_json:
            print_json(document)
        else:
            click.echo(text())


def opened(weights: Path, data: str | None, device: str, workers: int) -> Opened:
    """Load weights and data for one of the commands."""
    from coview.evaluation.exported import load_backbone
    from coview.training.device import pick_device

    place = pick_device(device)
    backbone = load_backbone(weights).to(place)
    loaded = load_like(data or data_of(weights), backbone.meta, workers)
    return Opened(weights, backbone, loaded, place)


def data_of(weights: Path) -> str:
    """Return the data that a run was trained on.

    Raises:
        RequestError: ``weights`` is no run's directory.
    """
    facts = weights / "run.json"
    if not facts.is_file():
        raise RequestError("--data is needed: only a run's directory says what it trained on.")
    name: str = json.loads(facts.read_text(encoding="utf-8"))["data"]["name"]
    return name


def load_like(data: str, meta: dict[str, Any], workers: int) -> ImageData:
    """Load data at the size and with the channels that a backbone was trained with."""
    from coview.data.base import DataSettings
    from coview.data.sources import open_source

    settings = DataSettings(size=meta["image_size"], channels=meta["channels"])
    return open_source(data).load(settings, workers)
