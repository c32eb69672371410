"""``coview new``: a plugin package to start from."""

from __future__ import annotations

from pathlib import Path

import click

from coview.commands.options import json_option, print_json


@click.command("new")
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to create.  [default: ./coview-NAME]"
)
@json_option
def command(name: str, out: Path | None, as_json: bool) -> None:
    """Write a plugin package: a recipe, a loss, and tests for both.

    NAME is the method's name, for example my-method; the package is called coview-NAME.
    Existing files are never overwritten.
    """
    from coview.cli.new.scaffold import write_plugin

    folder = out or Path(f"coview-{name}")
    written = write_plugin(name, folder)
    if as_json:
        files = [path.relative_to(folder).as_posix() for path in written]
        print_json({"name": name, "path": str(folder), "files": files})
        return
    for path in written:
        click.echo(str(path))
    click.echo(f"\nnext: pip install -e {folder} && coview check {name} && pytest {folder}")
