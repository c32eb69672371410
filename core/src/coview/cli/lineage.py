"""``coview lineage``: the package that each component of each method comes from."""

from __future__ import annotations

from typing import Any

import click

from coview.commands import completing
from coview.commands.options import json_option, print_json, print_table
from coview.errors import CoviewError
from coview.hookspecs import ROLES
from coview.recipes.recipe import COMPONENTS, Recipe, find_recipe
from coview.registry import Entry, entries, find, kind_of_role


@click.command("lineage")
@click.argument("method", required=False, shell_complete=completing.methods)
@json_option
def command(method: str | None, as_json: bool) -> None:
    """Show the package that each component of a method comes from.

    Recipes are imported, components are not.
    """
    owners = [find("methods", method)] if method else entries("methods")
    family = [_branch(entry) for entry in owners]
    if as_json:
        print_json(family)
        return
    for branch in family:
        click.echo(f"{branch['method']}  [{branch['package']}]  {branch['summary']}")
        rows = [
            (role, use["name"], _origin(use, branch["package"]))
            for role in COMPONENTS
            for use in branch["roles"].get(role, ())
        ]
        print_table(rows, indent="  ")
        click.echo("")


def _branch(entry: Entry) -> dict[str, Any]:
    try:
        recipe = find_recipe(f"{entry.package}:{entry.name}")
    except CoviewError as error:
        # One broken package must not hide the others.
        return _described(entry, summary=f"cannot be read: {error}", roles={})
    return _described(entry, summary=recipe.summary, roles=_roles(recipe))


def _described(entry: Entry, **more: Any) -> dict[str, Any]:
    return {"method": entry.name, "package": entry.package, **more}


def _roles(recipe: Recipe) -> dict[str, list[dict[str, str]]]:
    return {
        role: [
            {"name": use.name, "package": _package(role, use.name)}
            for use in recipe.uses(role)
            if use.name != "none"
        ]
        for role in COMPONENTS
        if role in ROLES or recipe.uses(role)
    }


def _package(role: str, name: str) -> str:
    try:
        return find(kind_of_role(role), name).package
    except CoviewError:
        return ""


def _origin(use: dict[str, str], own: str) -> str:
    if not use["package"]:
        return "(not installed)"
    return "its own" if use["package"] == own else f"from {use['package']}"
