"""``coview new``: a plugin package to start from."""

from __future__ import annotations

from pathlib import Path

import click

from coview.cli.new.kinds import KINDS
from coview.commands import completing
from coview.commands.options import json_option, print_json


@click.command("new")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="loss",
    show_default=True,
    help="What the package provides.",
)
@click.option(
    "--base",
    default="",
    metavar="METHOD",
    shell_complete=completing.methods,
    help="With --kind method: its recipe, with one change, and no components.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to create.  [default: ./coview-NAME]"
)
@json_option
def command(name: str, kind: str, base: str, out: Path | None, as_json: bool) -> None:
    """Write a plugin package: a small component and its tests.

    NAME is the component's name, for example my-loss; the package is called coview-NAME. A
    loss, views, an encoder, a target, negatives or a wrapper come with a method of the same
    name: SimCLR with that part replaced. A method has a part of its own for each role, or,
    with --base, none. Existing files are never overwritten.
    """
    from coview.cli.new.scaffold import write_plugin

    folder = out or Path(f"coview-{name}")
    written = write_plugin(name, folder, kind, base)
    if as_json:
        files = [path.relative_to(folder).as_posix() for path in written]
        print_json({"name": name, "kind": kind, "path": str(folder), "files": files})
        return
    for path in written:
        click.echo(str(path))
    check = f" && coview check {name}" if KINDS[kind].has_recipe else ""
    click.echo(f"\nnext: pip install -e {folder}{check} && pytest {folder}")
