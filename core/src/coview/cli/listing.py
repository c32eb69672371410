"""``coview list``: what is installed."""

from __future__ import annotations

import click

from coview.cli.describe import description
from coview.commands.options import json_option, print_json, print_table
from coview.registry import KINDS, entries, kind_of


@click.command("list")
@click.argument("kind", metavar="[ROLE_OR_KIND]", required=False)
@json_option
def command(kind: str | None, as_json: bool) -> None:
    """List what is installed: methods, components, data sets, ...

    Reads only package metadata; `coview doctor` also loads everything.
    """
    kinds = [kind_of(kind)] if kind else list(KINDS)
    found = [entry for name in kinds for entry in entries(name)]
    if as_json:
        fields = ("kind", "name", "package", "version")
        print_json(
            [
                {field: getattr(entry, field) for field in fields}
                | {"description": description(entry)}
                for entry in found
            ]
        )
        return
    for name in kinds:
        rows = [
            (entry.name, entry.package, entry.version, description(entry))
            for entry in found
            if entry.kind == name
        ]
        if rows or kind:
            click.echo(f"{name}:" if rows else f"{name}: none installed")
            print_table(rows, indent="  ")
