"""``coview doctor``: what is installed, and what does not work."""

from __future__ import annotations

import platform
from collections import Counter
from importlib import metadata
from typing import Any

import click

from coview.commands.options import json_option, print_json, print_table
from coview.errors import PluginError
from coview.registry import KINDS, clashes, entries, named

LIBRARIES = ("torch", "torchvision", "kornia", "timm", "pluggy", "attrs", "cattrs", "click")


@click.command("doctor")
@click.option("--verbose", "-v", is_flag=True, help="Name all that each package brings.")
@json_option
@click.pass_context
def command(ctx: click.Context, verbose: bool, as_json: bool) -> None:
    """Load all that is installed; report devices and problems.

    Exit status 1 if anything is broken.
    """
    report = examine()
    if as_json:
        print_json(report)
    else:
        _print(report, verbose)
    if report["problems"]:
        ctx.exit(1)


def examine() -> dict[str, Any]:
    """Return devices, versions, packages and all problems, as plain values."""
    import torch

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    problems = [*clashes(), *_taken_commands()]
    packages: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        for entry in entries(kind):
            package = packages.setdefault(
                entry.package, {"version": entry.version, "brings": [], "broken": False}
            )
            package["brings"].append(f"{kind}:{entry.name}")
            try:
                entry.load()
            except PluginError as error:
                package["broken"] = True
                problems.append(str(error))
    return {
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "devices": ["cpu", *cuda],
        "threads": torch.get_num_threads(),
        "packages": packages,
        "problems": problems,
    }


def _taken_commands() -> list[str]:
    from coview.cli.main import COMMANDS

    return [
        f"The packages coview and {entry.package} both claim the command {entry.name!r}. "
        "coview's own is used."
        for entry in entries("commands")
        if entry.name in COMMANDS
    ]


def _counts(brings: list[str]) -> str:
    """Return how many there are of each kind: ``2 methods, 1 loss``."""
    counts = Counter(name.partition(":")[0] for name in brings)
    return ", ".join(f"{count} {named(kind, count)}" for kind, count in counts.items())


def _print(report: dict[str, Any], verbose: bool) -> None:
    click.echo(f"python {report['python']}, {report['threads']} threads")
    print_table([(name, version) for name, version in report["libraries"].items()], indent="  ")
    click.echo(f"devices: {', '.join(report['devices'])}")
    click.echo("packages:")
    rows = [
        (
            *(name, p["version"], "BROKEN" if p["broken"] else "ok"),
            ", ".join(p["brings"]) if verbose else _counts(p["brings"]),
        )
        for name, p in sorted(report["packages"].items())
    ]
    print_table(rows, indent="  ")
    for problem in report["problems"]:
        click.echo(f"problem: {problem}")
    if not report["problems"]:
        click.echo("no problems found")
