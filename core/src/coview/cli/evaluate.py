"""``coview evaluate``: a group with one command per protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.cli.describe import description
from coview.cli.finetune import finetune
from coview.cli.linear import linear
from coview.cli.retrieval import retrieval
from coview.cli.table import table
from coview.commands.endings import measured
from coview.commands.options import UNCUT, parse_set, settings_of_protocol
from coview.commands.weights import data_option, measuring, weights_argument
from coview.registry import Entry, entries


class Evaluations(click.Group):
    """coview's own evaluations, and every other that a package registers as a protocol."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted({*self.commands, *(entry.name for entry in entries("protocols"))})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the evaluations, each with its first sentence, which click would cut short."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(UNCUT)) for name, one in commands.items() if one]
            )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return an own command, or one for a registered protocol, which is not imported."""
        own = super().get_command(ctx, cmd_name)
        others = [entry for entry in entries("protocols") if entry.name == cmd_name]
        return _registered(others[0]) if own is None and others else own


def _registered(entry: Entry) -> click.Command:
    @click.command(entry.name, help=description(entry) or f"(brought by {entry.package})")
    @weights_argument
    @data_option
    @measuring
    def command(weights: Path, data: str | None, **options: Any) -> None:
        measured(entry.name, weights, data, options, parse_set(settings_of_protocol()))

    return command


@click.group("evaluate", cls=Evaluations)
def command() -> None:
    """Evaluate weights by kNN, linear probe, fine-tuning, retrieval."""


@command.command("knn")
@weights_argument
@data_option
@click.option(
    "-k",
    type=click.IntRange(min=1),
    help="Neighbours that vote.  [default: 200; with fewer than 1,000 training images as many as "
    "the smallest class has]",
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
@click.option(
    "--features",
    type=click.Choice(["backbone", "projection"]),
    default="backbone",
    show_default=True,
    help="What is compared: the backbone's features, or the projection, as in training.",
)
@measuring
@click.pass_context
def knn(ctx: click.Context, /, weights: Path, data: str | None, **options: Any) -> None:
    """Measure accuracy by a vote of the nearest training images.

    Where no setting is given, the vote that the method's authors published (InstDisc, MoCo's
    small preset, DINO) is measured beside it.
    """
    settings = {name: options[name] for name in ("k", "vote", "features")}
    if ctx.get_parameter_source("temperature") is not click.core.ParameterSource.DEFAULT:
        settings["temperature"] = options["temperature"]
    measured("knn", weights, data, options, settings)


for subcommand in (linear, finetune, retrieval, table):
    command.add_command(subcommand)
