"""Options and helpers shared by commands that evaluate or export weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from coview.commands.options import (
    AnyCommand,
    data_help,
    device_option,
    json_option,
    on_bad_image,
    on_bad_image_option,
    print_json,
)
from coview.errors import CoviewError, RequestError

if TYPE_CHECKING:
    import torch

    from coview.data.base import ImageData
    from coview.weights.card import WeightCard
    from coview.weights.exported import ExportedBackbone
    from coview.weights.open import Weights


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
        click.argument("weights", metavar="RUN_OR_WEIGHTS", type=click.Path(path_type=Path)),
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


data_option = click.option("--data", help=f"{data_help}  [default: the run's own]")


@attrs.frozen(eq=False)
class Opened:
    """Weights on a device, and the data to evaluate them on."""

    weights: Path
    backbone: ExportedBackbone
    data: ImageData
    device: torch.device
    origin: str | None = None

    def answer(
        self,
        evaluation: str,
        result: dict[str, Any],
        as_json: bool,
        text: Callable[[], str],
        also: ImageData | None = None,
    ) -> None:
        """Record a result with the run and print it; ``also`` is a second data set used for it."""
        from coview.evaluation.results import remember

        origin = {} if self.origin is None else {"origin": self.origin}
        document = {"weights": str(self.weights), **origin, "data": self.data.name, **result}
        for data in dict.fromkeys((self.data, also or self.data)):
            document |= tell_bad_images(data)
        told = {"evaluation": evaluation, **document, "data_fingerprint": self.data.fingerprint}
        kept = ""
        try:
            remember(self.weights, told, sys.argv)
        except CoviewError as error:
            kept = f"The result was not kept with the run: {error}"
        if as_json:
            print_json(document)
        else:
            click.echo(text())
        say([kept] if kept else [])


def opened(
    weights: Path,
    data: str | None,
    device: str,
    workers: int,
    backbone: str | None = None,
    pretrained: bool = False,
) -> Opened:
    """Load weights and data for a command."""
    from coview.training.device import pick_device

    place = pick_device(device)
    found = found_weights(weights, backbone, pretrained)
    loaded = load_like(data or data_of(weights), found.network.card, workers)
    say(found.notes)
    return Opened(weights, found.network.to(place), loaded, place, found.origin)


def found_weights(weights: Path, backbone: str | None, pretrained: bool) -> Weights:
    """Load weights from a run, a file or ``timm:NAME``."""
    from coview.weights.open import open_weights

    return open_weights(weights, backbone=backbone, pretrained=pretrained)


def say(notes: Iterable[str]) -> None:
    """Print notes about weights on stderr."""
    for note in notes:
        click.echo(f"note: {note}", err=True)


def data_of(weights: Path) -> str:
    """Return the data that a run was trained on.

    Raises:
        RequestError: ``weights`` is not a run's directory.
    """
    facts = weights / "run.json"
    if not facts.is_file():
        raise RequestError("Add --data: only a run's directory records what it was trained on.")
    name: str = json.loads(facts.read_text(encoding="utf-8"))["data"]["name"]
    return name


def tell_bad_images(data: ImageData, fate: str = "are left out") -> dict[str, Any]:
    """Report unreadable images and their fate on stderr; return them for JSON."""
    found = data.bad_images
    for kind, facts in found.items():
        click.echo(
            f"{facts['count']} {kind} images of {data.name} cannot be read and {fate}:",
            err=True,
        )
        for sentence in facts["first"]:
            click.echo(f"  {sentence}", err=True)
    return {"bad_images": found} if found else {}


def load_like(data: str, meta: WeightCard | Mapping[str, Any], workers: int) -> ImageData:
    """Load data with the image size and channels that a backbone was trained with."""
    from coview.data.base import DataSettings
    from coview.data.sources import open_source
    from coview.weights.card import WeightCard

    card = WeightCard.of(meta)
    settings = DataSettings(
        size=card.image_size, channels=card.channels, on_bad_image=on_bad_image()
    )
    return open_source(data).load(settings, workers)
