"""``coview check``: test what a method or a package promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from coview.commands import completing
from coview.commands.options import json_option, print_json
from coview.errors import RequestError, unknown

if TYPE_CHECKING:
    from coview.recipes.configure import Changes
    from coview.testing import Result
    from coview.testing.kit import Promise


@click.command("check")
@click.argument(
    "name", metavar="METHOD_OR_PACKAGE_OR_DATA", required=False, shell_complete=completing.methods
)
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
@click.option("--backbone", help="Check it with this network, not with a small one.")
@click.option(
    "--data",
    shell_complete=completing.datasets,
    help="Check it on real images, not on noise: SOURCE[:PATH].",
)
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
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
    backbone: str | None,
    data: str | None,
    device: str,
    explain: bool,
    as_json: bool,
) -> None:
    """Check what a method or a data set promises, or everything in a package.

    Prints one line per promise: ok, failed, or skipped, and why; after a failure, the
    smallest numbers that show it. The method is made small: its small preset, a network
    of 0.3 M parameters, 16 images of 32 pixels of noise, unless --backbone, --image-size
    or --data say otherwise. With --use or --set, the changed method is checked. Several
    processes are always compared on the CPU. A data set (SOURCE[:PATH], or a folder) is
    loaded twice, and 64 images of each split are read.

    Exit status 1 if a promise is not kept.
    """
    from coview.commands.options import changes_from
    from coview.testing.checks import chosen
    from coview.testing.kit import PROMISES, PROMISES_OF_DATA

    if explain:
        _explain(chosen(fast, only, (*PROMISES, *PROMISES_OF_DATA)))
        return
    of_data = name is not None and _is_data(name)
    tried = chosen(fast, only, PROMISES_OF_DATA if of_data else PROMISES)
    if name is None:
        raise RequestError("Name a METHOD or a PACKAGE.")
    changes = changes_from(uses, settings, image_size=image_size, backbone=backbone)
    results = []
    for result in _results(name, of_data, tried, changes, data or "", device):
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


def _results(
    name: str, of_data: bool, tried: Sequence[Promise], changes: Changes, data: str, device: str
) -> Iterator[Result]:
    from coview.recipes.configure import Changes
    from coview.registry import entries, find
    from coview.testing import Subject, try_all
    from coview.testing.packages import brought_by, packages, try_package
    from coview.testing.source import SourceSubject
    from coview.training.device import pick_device

    if of_data:
        if changes != Changes() or data:
            raise RequestError("A data set is checked by itself: leave out all options but --only.")
        return try_all(SourceSubject(name), tried)
    place = str(pick_device(device))
    if data:
        _refuse_missing(data)

    def subject(method: str) -> Subject:
        return Subject(method, changes, data=data, device=place)

    methods = {entry.name for entry in entries("methods")}
    short = name.rpartition(":")[2]
    if name.endswith(".toml") or short in methods:
        if not name.endswith(".toml"):
            find("methods", name)  # raises an error if two packages claim the name
        return try_all(subject(name), tried)
    brought = brought_by(name)
    if not brought:
        raise RequestError(unknown("method or package", name, {*methods, *packages()}))
    if changes.use or changes.set or changes.image_size:
        raise RequestError("--use, --set and --image-size apply to a method, not to a package.")
    return try_package(brought, tried, subject)


def _is_data(name: str) -> bool:
    """Whether a name is a data set's and neither a method's, a recipe file's nor a package's."""
    from coview.registry import entries
    from coview.testing.packages import packages
    from coview.testing.source import is_source

    methods = {entry.name for entry in entries("methods")}
    other = name.endswith(".toml") or name.rpartition(":")[2] in methods or name in packages()
    return not other and is_source(name)


def _refuse_missing(data: str) -> None:
    """Refuse data that do not exist, before anything is checked."""
    from coview.data.sources import open_source

    open_source(data)


def _print(result: Result) -> None:
    line = f"{result.status:8}{result.subject}  {result.promise}"
    if result.precision != "float32" and result.status != "skipped":
        line += f" (in {result.precision})"
    click.echo(f"{line}: {result.sentence}" if result.sentence else line)
    if result.evidence:
        click.echo(f"        {result.evidence}")
    if result.page:
        click.echo(
            f"        Explained in {result.page}, and by: coview check --explain --only "
            f"{result.promise}"
        )


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
