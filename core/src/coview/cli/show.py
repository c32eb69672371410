"""``coview show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from coview.cli.common import changes_from, json_option, print_json, recipe_options

if TYPE_CHECKING:
    from coview.resolve import Part, Resolved


@click.command("show")
@click.argument("method")
@recipe_options
@click.option("--toml", is_flag=True, help="Print a file that `coview train` reads back.")
@json_option
def command(
    method: str,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    toml: bool,
    as_json: bool,
    **shortcuts: Any,
) -> None:
    """Show a recipe: every setting, its meaning, and the layer that set it.

    Without --image-size or --preset, this is the paper's recipe.
    """
    from coview.configure import configure
    from coview.recipes import to_toml

    resolved = configure(method, None, changes_from(uses, settings, **shortcuts), "command line")
    if toml:
        click.echo(to_toml(resolved.recipe), nl=False)
    elif as_json:
        print_json(as_document(resolved))
    else:
        show(resolved)


def as_document(resolved: Resolved) -> dict[str, Any]:
    """Return the recipe as plain values, with packages, meanings and origins."""
    from coview.recipes import SCALARS

    recipe = resolved.recipe
    return {
        "method": recipe.name,
        "summary": recipe.summary,
        "paper": recipe.paper,
        "preset": resolved.preset,
        **{key: getattr(recipe, key) for key in SCALARS},
        "tables": {
            table: [_part_document(part) for part in parts]
            for table, parts in resolved.parts.items()
        },
        "notices": list(resolved.notices),
    }


def _part_document(part: Part) -> dict[str, Any]:
    from coview.settings import fields_of, plain

    return {
        "use": part.name,
        "package": part.package,
        "shared_with": part.shared_with,
        "settings": {
            field.name: {
                "value": plain(getattr(part.settings, field.name)),
                "help": field.metadata.get("help", ""),
                "layer": part.origins[field.name],
            }
            for field in fields_of(type(part.settings))
        },
    }


def show(resolved: Resolved, err: bool = False) -> None:
    """Print a resolved recipe for people."""
    recipe = resolved.recipe
    lines = [f"{recipe.name or 'recipe'}: {recipe.summary}"]
    if recipe.paper:
        lines.append(f"paper: {recipe.paper}")
    lines.append(f"preset: {resolved.preset or 'none (the paper)'}")
    for key, layer in resolved.origins.items():
        lines.append(f"{key} = {getattr(recipe, key)}  ({layer})")
    for table, parts in resolved.parts.items():
        for part in parts:
            lines += _part_lines(table, part)
    lines += _settings_lines("data", resolved.data, resolved.data_origins)
    lines.append(
        "Views are cut from images that the loader brought to one size, not from full-size files."
    )
    lines += [f"note: {notice}" for notice in resolved.notices]
    click.echo("\n".join(lines), err=err)


def _part_lines(table: str, part: Part) -> list[str]:
    head = f"{table}: {part.name}  [{part.package}]"
    if part.shared_with:
        return ["", f"{head}  the same component as the {part.shared_with}"]
    return ["", head, *_settings_lines(table, part.settings, part.origins)[1:]]


def _settings_lines(table: str, settings: Any, origins: Any) -> list[str]:
    from coview.settings import fields_of, plain

    lines = [f"\n{table}:"]
    for field in fields_of(type(settings)):
        value = plain(getattr(settings, field.name))
        lines.append(f"  {table}.{field.name} = {value}  ({origins[field.name]})")
        if help_text := field.metadata.get("help"):
            lines.append(f"      {help_text}")
    return lines
