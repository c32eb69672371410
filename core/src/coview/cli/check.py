"""``coview check``: test what a method or a package promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from coview.commands.options import json_option, print_json
from coview.errors import RequestError, unknown

if TYPE_CHECKING:
    from coview.recipes.configure import Changes
    from coview.testing import Result
    from coview.testing.kit import Promise


@click.command("check")
@click.argument("name", metavar="METHOD_OR_PACKAGE", required=False)
@click.option(
    "--only", multiple=True, metavar="PROMISE", help="Check only this promise. Repeatable."
)
@click.option("--fast", is_flag=True, help="Skip checks that start processes.")
@click.option(
    "--use",
    "uses",
    multiple=True,
    metavar="ROLE=COMPONENT",
    help="Use another component for a role. Repeatable.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="ROLE.KEY=VALUE",
    help="Change a setting. Repeatable.",
)
@click.option("--image-size", type=int, help="Pixels per side, or samples of a signal.")
@click.option("--explain", is_flag=True, help="Explain each promise and why; check nothing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str | None,
    only: tuple[str, ...],
    fast: bool,
    uses: tuple[str, ...],
    settings: tuple[str, ...],
    image_size: int | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Check what a method promises, or everything in a package.

    Prints one line per promise: ok, failed, or skipped, and why. The method is made
    small: its small preset, a network of 0.3 M parameters, 16 images of 32 pixels of
    noise. With --use or --set, the changed method is checked.

    Exit status 1 if a promise is not kept.
    """
    from coview.commands.options import changes_from
    from coview.testing.checks import chosen

    tried = chosen(fast, only)
    if explain:
        _explain(tried)
        return
    if name is None:
        raise RequestError("Name a METHOD or a PACKAGE.")
    changes = changes_from(uses, settings, image_size=image_size)
    results = []
    for result in _results(name, tried, changes):
        results.append(result)
        if not as_json:
            _print(result)
    counts = Counter(result.status for result in results)
    if as_json:
        print_json(_document(name, results, counts))
    else:
        click.echo(", ".join(f"{counts[s]} {s}" for s in ("ok", "failed", "skipped")))
    if counts["failed"]:
        ctx.exit(1)


def _results(name: str, tried: Sequence[Promise], changes: Changes) -> Iterator[Result]:
    from coview.registry import entries, find
    from coview.testing import Subject, try_all
    from coview.testing.packages import brought_by, packages, try_package

    methods = {entry.name for entry in entries("methods")}
    short = name.rpartition(":")[2]
    if name.endswith(".toml") or short in methods:
        if not name.endswith(".toml"):
            find("methods", name)  # raises an error if two packages claim the name
        return try_all(Subject(name, changes), tried)
    brought = brought_by(name)
    if not brought:
        raise RequestError(unknown("method or package", name, {*methods, *packages()}))
    if changes.use or changes.set or changes.image_size:
        raise RequestError("--use, --set and --image-size apply to a method, not to a package.")
    return try_package(brought, tried)


def _print(result: Result) -> None:
    line = f"{result.status:8}{result.subject}  {result.promise}"
    click.echo(f"{line}: {result.sentence}" if result.sentence else line)


def _explain(tried: Sequence[Promise]) -> None:
    for promise in tried:
        lines = [line.strip() for line in promise.meaning.splitlines()]
        click.echo("\n    ".join([promise.name, *(line for line in lines if line)]))


def _document(name: str, results: Sequence[Result], counts: Counter[str]) -> dict[str, object]:
    import attrs

    return {
        "checked": name,
        "ok": counts["ok"],
        "failed": counts["failed"],
        "skipped": counts["skipped"],
        "results": [attrs.asdict(result) for result in results],
    }
