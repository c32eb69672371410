"""Options, tables and JSON that several commands share."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from coview.commands import completing
from coview.errors import RequestError
from coview.recipes.bare import OTHER_WORDS, SHORTCUTS
from coview.settings import fields_of, literal, structure

AnyCommand = Callable[..., Any]
GAP, NARROW = 2, 20
"""Columns between those of a table; what is narrower is not worth wrapping into."""
UNCUT = 1_000
"""Characters of a command's first sentence in a list of commands: it is wrapped, not cut."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
_ON_BAD_IMAGE = "coview.on_bad_image"
bad_images_help = (
    "What to do with unreadable images: skip (count and name them) or stop.  [default: skip]"
)
_SET = "coview.data_settings"


def on_bad_image_option(function: AnyCommand) -> AnyCommand:
    """Add what is done with unreadable images, and further settings of the data."""
    for add in (
        click.option(
            "--set",
            "data_settings",
            multiple=True,
            metavar="data.KEY=VALUE",
            shell_complete=completing.settings_of_data,
            expose_value=False,
            callback=lambda ctx, _, value: ctx.meta.update({_SET: value}),
            help="Change a setting of the data, like data.range=0,4095. Repeatable.",
        ),
        click.option(
            "--on-bad-image",
            type=click.Choice(["skip", "stop"]),
            expose_value=False,
            callback=lambda ctx, _, value: ctx.meta.update({_ON_BAD_IMAGE: value}),
            help=bad_images_help,
        ),
    ):
        function = add(function)
    return function


def on_bad_image() -> str:
    """Return the value of ``--on-bad-image`` in the running command."""
    ctx = click.get_current_context(silent=True)
    return (ctx.meta.get(_ON_BAD_IMAGE) if ctx else None) or "skip"


_TYPED = "coview.typed"


def keep_typed(ctx: click.Context, words: Sequence[str]) -> None:
    """Remember the words of a command line, which may have been given in Python too."""
    ctx.meta[_TYPED] = tuple(words)


def typed(ctx: click.Context) -> tuple[str, ...]:
    """Return the words that followed ``coview`` on the command line."""
    words: tuple[str, ...] = ctx.meta[_TYPED]
    return words


def asked_of_data(texts: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what ``--set data.KEY=VALUE`` was given, by KEY, as plain values."""
    if texts is None:
        ctx = click.get_current_context(silent=True)
        texts = (ctx.meta.get(_SET) if ctx else None) or ()
    return {key.removeprefix("data."): value for key, value in parse_set(texts).items()}


def settings_of_protocol() -> list[str]:
    """Take those values of ``--set`` that are not about the data from the running command."""
    ctx = click.get_current_context()
    texts: tuple[str, ...] = ctx.meta.get(_SET) or ()
    ctx.meta[_SET] = tuple(text for text in texts if text.startswith("data."))
    return [text for text in texts if not text.startswith("data.")]


def data_settings(known: Mapping[str, Any], texts: Sequence[str] | None = None) -> Any:
    """Return the settings of the data in the running command.

    Args:
        known: plain values by name, over which ``--set data.KEY=VALUE`` is laid.
        texts: what ``--set`` was given; None: by the option of :func:`on_bad_image_option`.

    Raises:
        RequestError: there is no such setting, or its value is wrong.
    """
    from coview.recipes.tables import DataSettings

    found, problems = structure(DataSettings, {**known, **asked_of_data(texts)}, "data")
    if problems:
        raise RequestError(*problems)
    return found


data_help = "SOURCE[:PATH]: digits, idx:DIR, cifar10, ..., or the path of a folder of images."


OTHER_OPTIONS = {
    "arch": "--backbone",
    "batchsize": "--batch-size",
    "bs": "--batch-size",
    "checkpoint": "--resume",
    "data-dir": "--data",
    "data-path": "--data",
    "dataset": "--data",
    "gpu": "--device",
    "img-size": "--image-size",
    "learning-rate": "--lr",
    "max-epochs": "--epochs",
    "model": "--backbone",
    "num-workers": "--workers",
    "output": "--out",
    "output-dir": "--out",
    "size": "--image-size",
    "tau": "--temperature",
    "temp": "--temperature",
    "warmup-epochs": "--warmup",
    "wd": "--weight-decay",
    "weights": "--init",
}
"""What people call an option -> its name here."""


def suggested(error: click.NoSuchOption) -> click.NoSuchOption:
    """Return the error for an unknown option, naming the one that was meant, or ``--set``.

    click knows only names that look alike, of which ``--data`` is one for ``--tau``.
    """
    if error.ctx is None or not error.option_name.startswith("--"):
        return error
    word = error.option_name.lstrip("-").replace("_", "-").lower()
    key, parameters = word.replace("-", "_"), error.ctx.command.params
    if meant := OTHER_OPTIONS.get(word):
        named = meant if any(meant in one.opts for one in parameters) else ""
    elif any(one.name == "settings" for one in parameters) and (
        key in OTHER_WORDS or not error.possibilities
    ):
        named = f"--set {key}=VALUE"
    else:
        return error
    hint = f" Did you mean {named!r}?" if named else ""
    message = f"No such option {error.option_name!r}.{hint}"
    return click.NoSuchOption(error.option_name, message, ctx=error.ctx)


def recipe_options(function: AnyCommand) -> AnyCommand:
    """Add the options that change a recipe."""
    short = [
        click.option(f"--{name.replace('_', '-')}", metavar="VALUE", help=text)
        for name, text in SHORTCUTS.items()
    ]
    for option in reversed(
        (
            click.option("--epochs", type=int, help="Passes over the training set."),
            click.option("--batch-size", type=int, help="Batch size, over all processes."),
            click.option("--accumulate", type=int, help="Micro-batches per optimiser step."),
            *short,
            click.option(
                "--backbone",
                shell_complete=completing.backbones,
                help="A registered or timm name, or a network of your own: FILE.py:FUNCTION or "
                "MODULE:FUNCTION.",
            ),
            click.option(
                "--image-size", type=int, help="Pixels per side to which images are resized."
            ),
            click.option(
                "--preset",
                shell_complete=completing.presets,
                help="A preset's name, or none.  [default: chosen by the images]",
            ),
            click.option(
                "--use",
                "uses",
                multiple=True,
                metavar="ROLE=COMPONENT",
                shell_complete=completing.components,
                help="Use another component for a role (views, encoder, target, negatives, loss, "
                "wrap), "
                "as in negatives=queue; for views also your own transform: views=FILE.py:NAME. "
                "Repeatable.",
            ),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="ROLE.KEY=VALUE",
                shell_complete=completing.settings,
                help="Change a setting: loss.temperature=0.2, or just temperature=0.2 if only one "
                "setting of the recipe has that name. Repeatable.",
            ),
        )
    ):
        function = option(function)
    return function


def run_options(function: AnyCommand) -> AnyCommand:
    """Add an option for each run setting, in the order in which they are declared."""
    from coview.training.run_settings import RunSettings

    for field in reversed(fields_of(RunSettings)):
        if field.name != "preset":  # one of the recipe's options too
            function = _run_option(field)(function)
    return function


def _run_option(field: Any) -> AnyCommand:
    facts, text = field.metadata["option"], field.metadata["help"]
    default = facts.get("shown", field.default)
    shown = text if default is None else f"{text}  [default: {default}]"
    if field.name == "observe":
        return click.option(
            "--observe",
            multiple=True,
            metavar="NAME[:KEY=VALUE,...]",
            shell_complete=completing.observers,
            help=text,
        )
    if field.name == "compile":
        return click.option("--compile/--no-compile", "compiled", default=None, help=shown)
    if field.type is bool:
        # A flag asks for what is not the default.
        written = f"no-{field.name}" if field.default else field.name
        return click.option(f"--{written}", is_flag=True, help=text)
    written = field.name.replace("_", "-")
    completes = {"data": completing.datasets, "init": completing.runs}.get(field.name)
    kind = _type_of(field, facts)
    return click.option(f"--{written}", type=kind, shell_complete=completes, help=shown)


def _type_of(field: Any, facts: dict[str, Any]) -> Any:
    if field.type is int:
        return click.IntRange(min=facts["least"]) if "least" in facts else int
    if field.type is float:
        return click.FloatRange(min=facts["least"])
    return _StepsOrNone() if field.name == "max_steps" else str


class _StepsOrNone(click.IntRange):
    """A number of steps, or none."""

    name = "steps or none"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Accept a number of steps or the word ``none``."""
        return value if value == "none" else super().convert(value, param, ctx)


def asked_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Remove the run settings from a command's arguments; return those that were given."""
    from coview.training.run_settings import RunSettings

    compiled = given.pop("compiled")
    found = {
        "compile": None if compiled is None else "on" if compiled else "off",
        **{name: False if given.pop(f"no_{name}") else None for name in ("evaluate", "report")},
        "download": given.pop("download") or None,
    }
    for field in fields_of(RunSettings):
        if field.name not in found:
            found[field.name] = given.pop(field.name)
    return {name: value for name, value in found.items() if value not in (None, ())}


def parse_use(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read ``ROLE=NAME[,NAME]`` from the command line."""
    pairs = _pairs("--use", "ROLE=COMPONENT", texts)
    return {role: [name.strip() for name in names.split(",")] for role, names in pairs.items()}


def parse_set(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``ROLE.KEY=VALUE`` from the command line; values are TOML or text."""
    pairs = _pairs("--set", "ROLE.KEY=VALUE", texts)
    return {path: literal(value) for path, value in pairs.items()}


def _pairs(option: str, form: str, texts: Sequence[str]) -> dict[str, str]:
    problems = [f"{option} takes {form}, not {text!r}." for text in texts if "=" not in text]
    if problems:
        raise RequestError(*problems)
    split = (text.split("=", 1) for text in texts)
    return {key.strip(): value.strip() for key, value in split}


def changes_from(
    uses: Sequence[str],
    settings: Sequence[str],
    **shortcuts: Any,
) -> Any:
    """Return the changes to the recipe that the options ask for."""
    from coview.recipes.configure import Changes

    short = {name: shortcuts.pop(name, None) for name in SHORTCUTS}
    changed = {name: literal(text) for name, text in short.items() if text is not None}
    return Changes(use=parse_use(uses), set=changed | parse_set(settings), **shortcuts)


def print_json(value: Any) -> None:
    """Print a value as the command's JSON document."""
    click.echo(json.dumps(value, indent=2))


def print_table(rows: Sequence[Sequence[str]], indent: str = "", err: bool = False) -> None:
    """Print rows in aligned columns; a terminal wraps the last one within itself.

    Args:
        rows: of texts.
        indent: what every line begins with.
        err: print on stderr.
    """
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    start = len(indent) + sum(widths[:-1]) + GAP * (len(widths) - 1)
    room = (
        shutil.get_terminal_size().columns - start
        if (sys.stderr if err else sys.stdout).isatty()
        else 0
    )
    for row in rows:
        *others, last = row
        cells = [cell.ljust(width) for cell, width in zip(others, widths, strict=False)]
        first, *more = textwrap.wrap(last, room) if last and room > NARROW else [last]
        click.echo((indent + (" " * GAP).join([*cells, first])).rstrip(), err=err)
        for line in more:
            click.echo(" " * start + line, err=err)


def percent(share: float) -> str:
    """Format a share: 0.9812 -> ``98.1 %``."""
    return f"{100 * share:.1f} %"
