"""``coview show``: print a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import click

from coview.commands import completing
from coview.commands.data import described, told
from coview.commands.options import (
    changes_from,
    data_settings,
    json_option,
    print_json,
    recipe_options,
)
from coview.commands.project import defaults
from coview.errors import RequestError

if TYPE_CHECKING:
    from coview.data.base import DataSettings, ImageData
    from coview.recipes.resolve import Part, Resolved


@click.command("show")
@click.argument("method", required=False, shell_complete=completing.methods)
@click.option(
    "--data",
    shell_complete=completing.datasets,
    help="Show a data set too: what is found, what is left out and why, and how it is read. "
    "The recipe is then the one for these images.",
)
@recipe_options
@click.option("--toml", is_flag=True, help="Print a recipe file for `coview train`.")
@json_option
def command(
    method: str | None,
    data: str | None,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    toml: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Show a recipe: its settings, their meaning and their origin.

    Without --image-size, --preset or --data, this is the paper's recipe, with what a
    coview.toml in this folder changes. Without METHOD, only the data are shown.
    """
    from coview.recipes.configure import configure
    from coview.recipes.recipe import to_toml

    if method is None:
        if data is None:
            raise RequestError("Name a method to show its recipe, or add --data SOURCE.")
        own = [text for text in settings if text.startswith("data.")]
        if own != list(settings) or uses or any(v is not None for v in shortcuts.values()) or toml:
            raise RequestError("Without METHOD, only --data, --set data.KEY=VALUE and --json fit.")
        shown = _loaded(data, data_settings({}, settings))
        if as_json:
            print_json(described(shown))
        else:
            click.echo("\n".join(told(shown)))
        return
    native = images = None
    if data is not None:
        native, images = _measured(data)
    changes = changes_from(uses, settings, **shortcuts)
    project = defaults(method, changes)
    preset = changes.preset or project.settings.get("preset")
    changes = attrs.evolve(changes, below=project.below, preset=preset)
    resolved = configure(method, native, changes, "command line", images)
    shown_data = None if data is None else _loaded(data, resolved.data)
    if toml:
        click.echo(to_toml(resolved.recipe), nl=False)
    elif as_json:
        more = {} if shown_data is None else {"images": described(shown_data)}
        if project.settings:
            more["run"] = {
                name: {"value": value, "layer": project.origins[name]}
                for name, value in project.settings.items()
            }
        print_json(as_document(resolved) | more)
    else:
        show(resolved)
        if project.settings:
            click.echo("\nrun:")
        for name, value in project.settings.items():
            click.echo(f"  {name} = {value}  ({project.origins[name]})")
        if shown_data is not None:
            click.echo("\n".join(("", *told(shown_data))))


def _measured(data: str) -> tuple[int, int | None]:
    """Return the pixels per side of a data set's images and, if it is known, their number."""
    from coview.components import DataSource, declared
    from coview.data.sources import open_source

    source = open_source(data)
    return source.native_size(), declared(source, DataSource, "count")()


def _loaded(data: str, settings: DataSettings) -> ImageData:
    """Load a data set without decoding all of it."""
    from coview.data.sources import open_source

    return open_source(data).load(attrs.evolve(settings, resident_mib=1))


def as_document(resolved: Resolved) -> dict[str, Any]:
    """Return the recipe as plain values, with packages, meanings and origins."""
    from coview.training.fields import wanted

    recipe = resolved.recipe
    return {
        "method": recipe.name,
        "summary": recipe.summary,
        "paper": recipe.paper,
        "preset": resolved.preset,
        "preset_source": resolved.preset_source,
        "training": _settings_document(resolved.training, resolved.origins),
        "tables": {
            table: [_part_document(part) for part in parts]
            for table, parts in resolved.parts.items()
        },
        "data": _settings_document(resolved.data, resolved.data_origins),
        "needs_fields": list(wanted(resolved)),
        "notices": list(resolved.notices),
    }


def _part_document(part: Part) -> dict[str, Any]:
    from coview.settings import plain

    return {
        "use": part.name,
        "package": part.package,
        "shared_with": part.shared_with,
        "weight": plain(part.weight),
        "settings": _settings_document(part.settings, part.origins),
    }


def _settings_document(settings: Any, origins: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    from coview.settings import fields_of, plain

    return {
        field.name: {
            "value": plain(getattr(settings, field.name)),
            "help": field.metadata.get("help", ""),
            "layer": origins[field.name],
        }
        for field in fields_of(type(settings))
    }


def show(resolved: Resolved) -> None:
    """Print a resolved recipe for people."""
    from coview.training.fields import wanted

    recipe = resolved.recipe
    lines = [f"{recipe.name or 'recipe'}: {recipe.summary}"]
    if recipe.paper:
        lines.append(f"paper: {recipe.paper}")
    lines.append(f"preset: {resolved.preset or 'none (the paper)'}")
    if resolved.preset_source:
        lines.append(f"preset's source: {resolved.preset_source}")
    lines += ["", *_settings_lines("", resolved.training, resolved.origins)]
    for table, parts in resolved.parts.items():
        for part in parts:
            lines += _part_lines(table, part)
    for name, who in wanted(resolved).items():
        lines += ["", f"needs of every image: {name} ({who})"]
    lines += ["", "data:", *_settings_lines("data.", resolved.data, resolved.data_origins), ""]
    if resolved.data.fit != "whole":
        lines.append("Views are cut from images that the loader has resized, not from whole files.")
    lines += [f"note: {notice}" for notice in resolved.notices]
    click.echo("\n".join(lines))


def _part_lines(table: str, part: Part) -> list[str]:
    head = f"{table}: {part.name}  [{part.package}]"
    if part.weight != 1.0:
        head += f"  weight {part.weight}"
    if part.shared_with:
        return ["", f"{head}  the same component as the {part.shared_with}"]
    return ["", head, *_settings_lines(f"{table}.", part.settings, part.origins)]


def _settings_lines(prefix: str, settings: Any, origins: Mapping[str, str]) -> list[str]:
    lines = []
    for name, said in _settings_document(settings, origins).items():
        lines.append(f"  {prefix}{name} = {said['value']}  ({said['layer']})")
        if said["help"]:
            lines.append(f"      {said['help']}")
    return lines
