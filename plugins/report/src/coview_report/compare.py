"""``coview compare``: methods beside each other, with the same compute for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands.endings import again, endings
from coview.commands.many import most_processes, processes_option, seconds
from coview.commands.options import (
    device_option,
    json_option,
    parse_set,
    print_json,
    print_table,
)
from coview.errors import RequestError

if TYPE_CHECKING:
    from coview.studies.jobs import Job
    from coview_report.comparing import Entrant, Wanted

OUT = Path("comparisons")
REPEATED = ("data", "steps", "images", "budget", "backbone", "batch_size", "image_size", "preset")
EXAMPLES = """\b
Examples:
  coview compare simclr moco-v2 byol --data digits --steps 500 --preset tiny
  coview compare simclr vicreg --data photos/ --budget 10m --backbone resnet18
  coview compare simclr mine.toml --data fashion-mnist --images 1000000
  coview compare byol --with lightly --data digits --steps 500 --preset tiny
"""


@click.command("compare", epilog=EXAMPLES)
@click.argument("methods", metavar="METHOD METHOD...", nargs=-1, required=True)
@click.option("--data", required=True, help="SOURCE[:PATH], with labels, for all methods.")
@click.option("--steps", type=click.IntRange(min=1), help="Train each run for as many steps.")
@click.option("--images", type=click.IntRange(min=1), help="Train each run on as many images.")
@click.option(
    "--budget",
    help="Train each run for about this time (90s, 10m, 2h): a step of each method is timed, and "
    "it gets as many steps as fit.",
)
@click.option(
    "--seeds",
    default=3,
    show_default=True,
    type=click.IntRange(1, 1_000),
    help="Runs of each method: seeds 0, 1, ...",
)
@click.option("--backbone", help="The network of all methods.  [default: the recipes', if equal]")
@click.option("--own-networks", is_flag=True, help="Let each method keep its recipe's network.")
@click.option("--batch-size", type=click.IntRange(min=2), help="Images a step, for all.")
@click.option("--image-size", type=click.IntRange(min=1), help="Pixels per side, for all.")
@click.option("--preset", help="A preset of the recipes, or none.  [default: by image size]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="ROLE.KEY=VALUE",
    help="Change a setting that all of the recipes have. Repeatable.",
)
@click.option(
    "--with",
    "peers",
    multiple=True,
    metavar="LIBRARY",
    help="Train each method by this library's own loop too: lightly, or what packages register. "
    "Repeatable.",
)
@processes_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=OUT,
    show_default=True,
    help="Folder of the results and all runs; comparisons in it share runs that are the same.",
)
@device_option
@json_option
def command(methods: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Compare methods: the same network, images, seeds and compute for each.

    Ends with a table of accuracies with 95 % intervals, and a page. After an interruption, or a
    kill, the same command goes on where it stopped.
    """
    from coview.studies import running
    from coview_report.compared import finish
    from coview_report.comparing import entrants, named, study

    wanted = _wanted(named(methods, 1 if given["peers"] else 2), given)
    found = entrants(wanted, _tell)
    made = study(wanted, found)
    processes = given["processes"] or _processes(given)
    done = running.run(made, wanted.asked, processes, tell=_tell, look=_Interim(found, wanted))
    ended = finish(wanted, found, done)
    if as_json:
        print_json(ended.document)
        return
    _print(wanted, ended)
    endings(f"next: {line}" for line in _next(methods, given, ended.standing, ended.best))


class _Interim:
    """Prints how the methods stand whenever all of them have finished a further seed."""

    def __init__(self, found: Sequence[Entrant], wanted: Wanted) -> None:
        self.found, self.seeds = found, wanted.asked.seeds
        self.told = 0

    def __call__(self, jobs: Sequence[Job]) -> None:
        from coview_report.standing import rows, standing

        whole = [s for s in self.seeds if all(j.result for j in jobs if j.seed == s)]
        if not self.told < len(whole) < len(self.seeds):  # the table at the end has them all
            return
        self.told = len(whole)
        _tell(f"so far, with {len(whole)} of {len(self.seeds)} seeds:")
        print_table([*rows(standing(self.found, jobs, whole))], indent="  ", err=True)


def _print(wanted: Any, ended: Any) -> None:
    from coview_report.standing import baselines, libraries, rows

    stood = ended.standing
    click.echo(f"{ended.title}:")
    print_table([*rows(stood)], indent="  ")
    click.echo(f"  {baselines(stood)}")
    for line in libraries(stood):
        click.echo(f"  {line}")
    click.echo(stood.verdict)
    click.echo(f"page: {ended.page}")


def _wanted(methods: dict[str, str], given: dict[str, Any]) -> Any:
    from coview.studies import Variant
    from coview.studies.jobs import Asked
    from coview_report.comparing import Compute, Wanted

    amounts = {name: given[name] for name in ("steps", "images", "budget")}
    if sum(value is not None for value in amounts.values()) != 1:
        raise RequestError("Say once what each run may use: --steps, --images or --budget.")
    budget = amounts.pop("budget")
    settings = parse_set(given["settings"])
    if given["image_size"] is not None:
        settings["data.size"] = given["image_size"]
    named = {name: given[name] for name in ("data", "preset", "backbone", "batch_size")}
    return Wanted(
        methods=methods,
        common=Variant(**named, set=settings),
        compute=Compute(**amounts, seconds=None if budget is None else seconds("--budget", budget)),
        asked=Asked(
            name="comparison",
            seeds=tuple(range(given["seeds"])),
            device=given["device"],
            out=given["out"],
        ),
        own_networks=given["own_networks"],
        peers=tuple(dict.fromkeys(given["peers"])),
    )


def _processes(given: dict[str, Any]) -> int:
    # Runs at the same time would take each other's.
    return 1 if given["budget"] is not None else most_processes(given["device"])


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _next(methods: Sequence[str], given: dict[str, Any], stood: Any, best: Path) -> list[str]:
    """Return the commands worth typing: more seeds where they are needed, the best run's page."""
    count, lines = len(stood.seeds), []
    if not all(place.told_apart for place in stood.places[1:]):
        flags = ["--own-networks"] if given["own_networks"] else []
        asked = {name: given[name] for name in REPEATED}
        more = {**asked, "out": _unless(given["out"], OUT), "seeds": max(3, 2 * count)}
        peers = [word for name in given["peers"] for word in ("--with", name)]
        lines.append(again(("compare", *methods, *flags, *peers), (), given["settings"], more))
    return [*lines, again(("report", str(best)))]


def _unless(value: Path, default: Path) -> Path | None:
    return None if value == default else value
