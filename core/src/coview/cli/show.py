"""``coview show``: print a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from coview.commands.options import changes_from, json_option, print_json, recipe_options

if TYPE_CHECKING:
    from coview.recipes.resolve import Part, Resolved


@click.command("show")
@click.argument("method")
@recipe_options
@click.option("--toml", is_flag=True, help="Print a recipe file for `coview train`.")
@json_option
def command(
    method: str,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    toml: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Show a recipe: every setting, its meaning, and where its value comes from.

    Without --image-size or --preset, this is the paper's recipe.
    """
    from coview.recipes.configure import configure
    from coview.recipes.recipe import to_toml

    resolved = configure(method, None, changes_from(uses, settings, **shortcuts), "command line")
    if toml:
        click.echo(to_toml(resolved.recipe), nl=False)
    elif as_json:
        print_json(as_document(resolved))
    else:
        show(resolved)


def as_document(resolved: Resolved) -> dict[str, Any]:
    """Return the recipe as plain values, with packages, meanings and origins."""
    recipe = resolved.recipe
    return {
        "method": recipe.name,
        "summary": recipe.summary,
        "paper": recipe.paper,
        "preset": resolved.preset,
        "training": _settings_document(resolved.training, resolved.origins),
        "tables": {
            table: [_part_document(part) for part in parts]
            for table, parts in resolved.parts.items()
        },
        "data": _settings_document(resolved.data, resolved.data_origins),
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
    recipe = resolved.recipe
    lines = [f"{recipe.name or 'recipe'}: {recipe.summary}"]
    if recipe.paper:
        lines.append(f"paper: {recipe.paper}")
    lines.append(f"preset: {resolved.preset or 'none (the paper)'}")
    lines += ["", *_settings_lines("", resolved.training, resolved.origins)]
    for table, parts in resolved.parts.items():
        for part in parts:
            lines += _part_lines(table, part)
    lines += ["", "data:", *_settings_lines("data.", resolved.data, resolved.data_origins), ""]
    lines.append("Views are cut from images that the loader has resized, not from full-size files.")
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
