"""The command group: finds commands and prints errors as sentences."""

from __future__ import annotations

import os
import sys
import textwrap
import traceback
from importlib import import_module
from typing import Any, NoReturn

import click

from coview.cli.describe import description
from coview.commands.options import UNCUT, keep_typed, suggested
from coview.errors import CoviewError, RequestError, unknown
from coview.registry import entries, find
from coview.terminal import Output, lasting

COMMANDS = {
    "list": "coview.cli.listing",
    "show": "coview.cli.show",
    "lineage": "coview.cli.lineage",
    "train": "coview.cli.train",
    "evaluate": "coview.cli.evaluate",
    "embed": "coview.cli.embed",
    "export": "coview.cli.export",
    "views": "coview.cli.views",
    "neighbours": "coview.cli.neighbours",
    "new": "coview.cli.new.command",
    "check": "coview.cli.check",
    "pack": "coview.cli.pack",
    "study": "coview.cli.study",
    "doctor": "coview.cli.doctor",
    "completion": "coview.cli.completion",
}


class Commands(click.Group):
    """coview's own commands, and those of installed plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, without importing plugins."""
        brought = {entry.name for entry in entries("commands")} - set(COMMANDS)
        return sorted((*COMMANDS, *brought))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module when it is needed."""
        if cmd_name in COMMANDS:
            command: click.Command = import_module(COMMANDS[cmd_name]).command
            return command
        if cmd_name in self.list_commands(ctx):
            loaded: click.Command = find("commands", cmd_name).load()
            return loaded
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown name, suggest the nearest."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise RequestError(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; those of plugins with their package, without importing them."""
        rows = []
        for name in COMMANDS:
            command = self.get_command(ctx, name)
            rows.append((name, command.get_short_help_str(UNCUT) if command else ""))
        for entry in entries("commands"):
            if entry.name not in COMMANDS:
                about = description(entry)
                origin = f"({entry.package})" if about else f"(brought by {entry.package})"
                rows.append((entry.name, f"{about} {origin}".strip()))
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what was typed, for messages that repeat it."""
        keep_typed(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit with 2 for a wrong request, 1 for failed work."""
        with lasting(escapes=True):
            result = self._answered(ctx)
            sys.stdout.flush()
            failed = sys.stdout.failed if isinstance(sys.stdout, Output) else None
            if failed is not None:
                click.echo(f"Error: The output could not be written: {failed.strerror}.", err=True)
                ctx.exit(1)
            return result

    def _answered(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise suggested(error) from None
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(1)
        except Exception as error:
            _fail(ctx, error)


def _fail(ctx: click.Context, error: Exception) -> NoReturn:
    if ctx.params.get("traceback") or os.environ.get("COVIEW_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, RequestError):
        for problem in error.problems:
            click.echo(f"Error: {problem}", err=True)
        _echo_notes(error)
        ctx.exit(2)
    known = isinstance(error, (CoviewError, OSError))
    click.echo(f"Error: {_sentence(error)}", err=True)
    _echo_notes(error)
    if not known:
        click.echo("  (to see where: coview --traceback COMMAND ...)", err=True)
    ctx.exit(1)


def _echo_notes(error: Exception) -> None:
    for note in getattr(error, "__notes__", ()):
        click.echo(textwrap.indent(note, "  "), err=True)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        # A path that the operating system rejects: too long, a loop, no permission.
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return str(error) if isinstance(error, CoviewError) else f"{type(error).__name__}: {error}"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--traceback", is_flag=True, help="Show where an error came from.")
@click.version_option(package_name="coview", message="%(package)s %(version)s")
def main(traceback: bool) -> None:
    """Train image encoders without labels, from exchangeable parts."""
