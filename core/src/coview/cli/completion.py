"""``coview completion``: the Tab key completes methods, components, settings and runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from coview.commands.completing import keep
from coview.errors import RequestError
from coview.files import write_text

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_COVIEW_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--print", "prints", is_flag=True, help="Print the shell's script; write nothing.")
@click.pass_context
def command(ctx: click.Context, shell: str | None, prints: bool) -> None:
    """Have bash, zsh or fish complete what you type after `coview`.

    SHELL is the one that you use, unless given. Run it again after you installed plugins: the
    names of their components' settings are kept, so that a Tab need not import torch.
    """
    shell = shell or _used()
    script = _script(ctx, shell)
    if prints:
        click.echo(script)
        return
    home = Path.home()
    if shell == "fish":
        file = home / ".config/fish/completions/coview.fish"
        write_text(file, script)
    else:
        file = home / f".config/coview/completion.{shell}"
        write_text(file, script)
        start = home / f".{shell}rc"
        line = f"source {file}"
        text = start.read_text(encoding="utf-8") if start.exists() else ""
        if line not in text.splitlines():
            end = "" if text.endswith("\n") or not text else "\n"
            with start.open("a", encoding="utf-8") as opened:
                opened.write(f"{end}{line}\n")
            click.echo(f"A line was added to {start}: {line}", err=True)
    click.echo(f"written: {file}", err=True)
    click.echo(f"written: {keep()}", err=True)
    click.echo(f"A new {shell} completes `coview`.", err=True)


def _used() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        told = f"Your shell is {name}" if name else "Your shell is not known"
        raise RequestError(f"{told}: coview completion bash, zsh or fish.")
    return name


def _script(ctx: click.Context, shell: str) -> str:
    made = get_completion_class(shell)
    assert made is not None
    return made(ctx.find_root().command, {}, Path(sys.argv[0]).name, VARIABLE).source()
