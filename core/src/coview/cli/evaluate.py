"""``coview evaluate``: a group, one command a protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from coview.cli.common import data_help, device_option, json_option, percent, print_json
from coview.errors import RequestError


@click.group("evaluate")
def command() -> None:
    """Measure what weights are worth."""


@command.command("knn")
@click.argument("weights", metavar="RUN_OR_WEIGHTS", type=click.Path(path_type=Path))
@click.option("--data", help=f"{data_help} Default: the run's own.")
@click.option("-k", default=200, show_default=True, type=click.IntRange(min=1), help="Neighbours.")
@click.option("--temperature", default=0.07, show_default=True, help="Of the votes' weights.")
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1))
@click.option("--workers", default=0, type=click.IntRange(min=0))
@device_option
@json_option
def knn(
    weights: Path,
    data: str | None,
    k: int,
    temperature: float,
    batch_size: int,
    workers: int,
    device: str,
    as_json: bool,
) -> None:
    """Top-1 by weighted vote of the nearest training images."""
    if temperature <= 0:
        raise RequestError(f"--temperature must be > 0: {temperature}")
    from coview.evaluation.exported import load_backbone
    from coview.evaluation.knn import evaluate_knn
    from coview.training.device import pick_device

    place = pick_device(device)
    backbone = load_backbone(weights).to(place)
    loaded = load_like(data or data_of(weights), backbone.meta, workers)
    result = evaluate_knn(
        backbone,
        loaded,
        k=k,
        temperature=temperature,
        batch_size=batch_size,
        device=place,
        workers=workers,
    ).as_dict()
    document = {"weights": str(weights), "data": loaded.name, **result}
    if as_json:
        print_json(document)
        return
    click.echo(
        f"kNN top-1 {percent(result['top1'])}, top-5 {percent(result['top5'])} on {loaded.name} "
        f"({result['protocol']}, k = {result['k']}, temperature {temperature}, "
        f"{result['train_images']} training and {result['test_images']} test images)"
    )


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


def load_like(data: str, meta: dict[str, Any], workers: int) -> Any:
    """Load data at the size and with the channels that a backbone was trained with."""
    from coview.data.base import DataSettings
    from coview.data.sources import open_source

    settings = DataSettings(size=meta["image_size"], channels=meta["channels"])
    return open_source(data).load(settings, workers)
