"""Methods compared: the same network, images, seeds and compute for each.

A comparison is a :class:`coview.studies.Study` that is made up on the spot, so its runs are
checked before the first one, done in processes of their own, and go on after a kill.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coview.components import DataSource, declared
from coview.errors import RequestError
from coview.files import write_json
from coview.recipes.configure import Changes
from coview.studies import KNN, UNTRAINED, Quantity, Study, Variant
from coview.studies.jobs import Asked

if TYPE_CHECKING:
    from coview.studies.peers import Peer
    from coview.training.request import Request
    from coview.training.run import Run

REHEARSALS = "rehearsals.json"
"""What each method's rehearsal showed, so that a comparison that goes on begins at once."""
PACES = "paces.json"
"""The seconds of a step of each method, kept so that a comparison that goes on is the same one."""
SECONDS = Quantity("coview_report.comparing:training_seconds", "seconds", percent=False)
MOST_WARMUP = 0.5
"""Share of the steps; a method that warms up for longer has hardly trained."""
Tell = Callable[[str], None]


@attrs.frozen(kw_only=True)
class Compute:
    """What each run may use: exactly one of these.

    Attributes:
        steps: optimiser steps.
        images: images that are trained on, each counted as often as it is seen.
        seconds: of training, without the reading of the data and evaluations.
    """

    steps: int | None = None
    images: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.steps:,} steps"
        return f"{self.images:,} images" if self.images is not None else f"{self.seconds:g} s"


@attrs.frozen(kw_only=True)
class Entrant:
    """A method that is compared, as its rehearsal shows it.

    Attributes:
        name: what it is called in tables.
        network: the backbone's name.
        shapes: of its tensors, which say whether two networks are the same.
        channels, size: of the images that it is given.
        batch: images a step.
        images: images to train on.
        steps_per_epoch: steps in which it sees them once.
        warmup: steps in which its learning rate rises.
        steps: how many it is given.
        by: the peer whose own loop trains it; None: coview's does.
        library: that peer with its version; empty: coview.
    """

    name: str
    network: str
    shapes: str
    channels: int
    size: int
    batch: int
    images: int
    steps_per_epoch: int
    warmup: int
    steps: int
    by: str | None = None
    library: str = ""

    @property
    def method(self) -> str:
        """What the method is called, whoever trains it."""
        return self.name if self.by is None else self.name.removesuffix(f" by {self.by}")

    @property
    def epochs(self) -> int:
        """The epochs over which its schedules run: they end with the last step."""
        return math.ceil(self.steps / self.steps_per_epoch)


@attrs.frozen(kw_only=True)
class Wanted:
    """What is compared, and how.

    Attributes:
        methods: names or recipe files, by what they are called in tables.
        common: what all share.
        compute: what each run may use.
        asked: seeds, device and folder.
        own_networks: whether each method keeps the network of its recipe.
        peers: other libraries, whose own loops of the methods are compared too.
    """

    methods: Mapping[str, str]
    common: Variant
    compute: Compute
    asked: Asked
    own_networks: bool = False
    peers: Sequence[str] = ()


def named(methods: Sequence[str], fewest: int = 2) -> dict[str, str]:
    """Return methods by what they are called: a recipe file by its name, or its folder's.

    Raises:
        RequestError: there are too few, or one is there twice.
    """
    names = [_name(method) for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"{', '.join(twice)} is there twice: every method is named once.")
    if len(names) < fewest:
        raise RequestError(
            "A comparison needs two methods or more, or one and --with another library."
        )
    return dict(zip(names, methods, strict=True))


def _name(method: str) -> str:
    path = Path(method)
    if path.suffix != ".toml":
        return method
    return path.resolve().parent.name if path.stem == "recipe" else path.stem


def entrants(wanted: Wanted, tell: Tell) -> list[Entrant]:
    """Rehearse every method, or recall its rehearsal, and divide the compute.

    Raises:
        RequestError: a method cannot be run like this, the data have no labels to compare
            by, or networks differ.
    """
    if refused := _refused(wanted):
        raise RequestError(*refused)
    found: list[Entrant] = []
    problems = []
    for name, method in wanted.methods.items():
        try:
            found += _entrants(name, method, wanted, tell)
        except RequestError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise RequestError(*problems)
    _refuse_unequal(found, wanted.own_networks)
    for each in found:
        _warn(each, tell)
    return found


def _refused(wanted: Wanted) -> list[str]:
    """Return a sentence for each peer that is not installed, or lacks one of the methods."""
    from coview.studies.peers import peer

    problems = []
    for name in wanted.peers:
        try:
            there = peer(name)
            there.version()
        except RequestError as error:
            problems += error.problems
            continue
        if missing := [m for m in wanted.methods.values() if m not in there.methods]:
            problems.append(
                f"--with {name} has no loop of {', '.join(missing)}, but of: "
                f"{', '.join(there.methods)}."
            )
    return problems


def _entrants(name: str, method: str, wanted: Wanted, tell: Tell) -> list[Entrant]:
    """Return a method as coview trains it, and as each peer does."""
    from coview.training.request import Request

    given = attrs.evolve(wanted.common, method=None).given()
    settings = {"data": given.pop("data"), "device": wanted.asked.device}
    request = Request(method=method, settings=settings, changes=Changes(**given))
    key = f"{name} {_digest(request)}"
    rehearsed = functools.cache(lambda: _rehearsed(name, request, tell))
    facts = _kept(wanted.asked.out / REHEARSALS, key, lambda: _facts(rehearsed()))

    def pace() -> float:
        from coview.training.pace import step_seconds

        run = rehearsed()
        tell(f"{name}: measuring the time of a step")
        return step_seconds(run)

    def steps(key: str, pace: Callable[[], float]) -> int:
        seconds = wanted.compute.seconds
        if seconds is not None:
            return max(1, int(seconds / _kept(wanted.asked.out / PACES, key, pace)))
        return wanted.compute.steps or max(1, round((wanted.compute.images or 0) / facts["batch"]))

    own = Entrant(name=name, steps=steps(key, pace), **facts)
    return [own, *_peers(own, rehearsed, wanted, key, steps, tell)]


def _peers(
    own: Entrant,
    rehearsed: Callable[[], Run],
    wanted: Wanted,
    key: str,
    steps: Callable[[str, Callable[[], float]], int],
    tell: Tell,
) -> Iterator[Entrant]:
    """Yield a method as each peer trains it: with the network, images and batches of coview's."""
    from coview.studies.peers import peer, step_seconds
    from coview.training.pace import ENOUGH

    for name in wanted.peers:
        theirs, called = peer(name), f"{own.name} by {name}"

        def pace(theirs: Peer = theirs, called: str = called) -> float:
            tell(f"{called}: measuring the time of a step")
            return step_seconds(theirs, rehearsed(), ENOUGH)

        library = f"{name} {theirs.version()}"
        count = steps(f"{key} by {library}", pace)
        yield attrs.evolve(own, name=called, by=name, library=library, steps=count)


def _rehearsed(name: str, request: Request, tell: Tell) -> Run:
    from coview.training.start import rehearse

    tell(f"{name}: rehearsing")
    run = rehearse(request)
    if not run.data.labelled:
        raise RequestError("These images have no labels, by which methods could be compared.")
    return run


def _facts(run: Run) -> dict[str, Any]:
    plan = run.plan
    shapes = [tuple(tensor.shape) for tensor in run.method.backbone().state_dict().values()]
    return {
        "network": run.card.backbone,
        "shapes": str(shapes),
        "channels": plan.channels,
        "size": plan.image_size,
        "batch": plan.batch_size,
        "images": plan.dataset_size,
        "steps_per_epoch": plan.steps_per_epoch,
        "warmup": getattr(run.schedule, "warmup", 0),
    }


def _digest(request: Request) -> str:
    """Return what a rehearsal depends on, as far as it is known without reading the images."""
    from coview.recipes.recipe import to_toml
    from coview.training.request import prepare

    prepared = prepare(request)
    count = declared(prepared.source, DataSource, "count")()
    versions = {package: metadata.version(package) for package in ("coview", "torch")}
    told = [request.settings["data"], count, str(prepared.device), prepared.settings.threads]
    facts = f"{to_toml(prepared.resolved.recipe)}\n{json.dumps([*told, versions])}"
    return hashlib.blake2b(facts.encode(), digest_size=8).hexdigest()


def _kept(file: Path, key: str, make: Callable[[], Any]) -> Any:
    """Return a value from a file; one that is not there yet is made, and kept."""
    known: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if key not in known:
        known[key] = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
    return known[key]


def _refuse_unequal(found: Sequence[Entrant], own_networks: bool) -> None:
    seen = {(each.channels, each.size) for each in found}
    if len(seen) > 1:
        sizes = ", ".join(f"{e.name} {e.size} pixels, {e.channels} channels" for e in found)
        raise RequestError(f"The methods would see other images: {sizes}. Give --image-size.")
    if own_networks or len({each.shapes for each in found}) == 1:
        return
    networks = ", ".join(f"{each.name} {each.network}" for each in found)
    raise RequestError(
        f"The methods' recipes have other networks: {networks}. Give one to all with --backbone, "
        "or let each keep its own with --own-networks."
    )


def _warn(each: Entrant, tell: Tell) -> None:
    if each.steps < each.steps_per_epoch:
        tell(
            f"note: {each.name} trains for {each.steps:,} steps, less than an epoch "
            f"({each.steps_per_epoch:,}), so its learning rate does not come to its end."
        )
    elif each.warmup > MOST_WARMUP * each.steps:
        tell(
            f"note: {each.name} warms up in {each.warmup:,} of its {each.steps:,} steps. "
            "For fewer: --set schedule.warmup_epochs=1"
        )


def study(wanted: Wanted, found: Sequence[Entrant]) -> Study:
    """Return the comparison as a study: a variant for each method, no expectation."""
    variants = {
        each.name: Variant(
            method=wanted.methods[each.method], epochs=each.epochs, max_steps=each.steps, by=each.by
        )
        for each in found
    }
    return Study(
        claim="Which method learns most from the same compute?",
        source="coview compare",
        common=wanted.common,
        variants=variants,
        expect=(),
        measure={"knn": KNN, "untrained": UNTRAINED, "seconds": SECONDS},
    )


def training_seconds(run: Any) -> float:
    """Return the seconds that a run's steps took, also of one that went on after a kill.

    Args:
        run: a finished :class:`coview.training.run.Run`.
    """
    seconds, before = 0.0, 0
    for entry in run.metrics:
        if "images_per_second" in entry:
            images = (entry["step"] - before) * run.plan.batch_size
            seconds, before = seconds + images / entry["images_per_second"], entry["step"]
    return seconds
