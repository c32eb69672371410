"""``coview evaluate``: a group with one command per protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.cli.finetune import finetune
from coview.cli.linear import linear
from coview.cli.retrieval import retrieval
from coview.cli.table import table
from coview.commands.options import percent
from coview.commands.weights import data_option, measuring, opened, weights_argument
from coview.errors import RequestError


@click.group("evaluate")
def command() -> None:
    """Evaluate trained weights (kNN, linear probe, fine-tuning, retrieval)."""


@command.command("knn")
@weights_argument
@data_option
@click.option(
    "-k", default=200, show_default=True, type=click.IntRange(min=1), help="Neighbours that vote."
)
@click.option(
    "--vote",
    type=click.Choice(["weighted", "plain"]),
    default="weighted",
    show_default=True,
    help="Whether nearer neighbours count more.",
)
@click.option(
    "--temperature", default=0.07, show_default=True, help="Temperature of the weighted vote."
)
@measuring
@click.pass_context
def knn(
    ctx: click.Context,
    /,
    weights: Path,
    data: str | None,
    k: int,
    vote: str,
    temperature: float,
    batch_size: int,
    workers: int,
    device: str,
    as_json: bool,
    backbone: str | None,
    pretrained: bool,
) -> None:
    """Measure accuracy by a vote of the nearest training images."""
    if temperature <= 0:
        raise RequestError(f"--temperature must be above 0, not {temperature}.")
    given = ctx.get_parameter_source("temperature") is not click.core.ParameterSource.DEFAULT
    if vote == "plain" and given:
        raise RequestError("A plain vote has no temperature: leave out --temperature.")
    from coview.evaluation.knn import evaluate_knn

    found = opened(weights, data, device, workers, backbone, pretrained)
    result = evaluate_knn(
        found.backbone,
        found.data,
        k=k,
        temperature=temperature if vote == "weighted" else None,
        batch_size=batch_size,
        device=found.device,
        workers=workers,
    ).as_dict()
    found.answer("knn", result, as_json, lambda: _sentence(result, found.data.name))


def _sentence(result: dict[str, Any], data: str) -> str:
    temperature = result["temperature"]
    warmth = "" if temperature is None else f", temperature {temperature}"
    # Among five classes or fewer, the truth is always among the first five.
    five = f", top-5 {percent(result['top5'])}" if result["classes"] > 5 else ""
    return (
        f"kNN top-1 {percent(result['top1'])}{five} on {data} "
        f"({result['protocol']}, k = {result['k']}{warmth}, "
        f"{result['train_images']} training and {result['test_images']} test images)"
    )


for subcommand in (linear, finetune, retrieval, table):
    command.add_command(subcommand)
