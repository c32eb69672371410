"""Methods compared: the same network, images, seeds and compute for each.

A comparison is a :class:`coview.studies.Study` that is made up on the spot, so its runs are
checked before the first one, done in processes of their own, and go on after a kill.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coview.errors import RequestError
from coview.files import write_json
from coview.recipes.configure import Changes
from coview.studies import KNN, UNTRAINED, Quantity, Study, Variant
from coview.studies.jobs import Asked

if TYPE_CHECKING:
    from coview.training.run import Run

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
    """

    methods: Mapping[str, str]
    common: Variant
    compute: Compute
    asked: Asked
    own_networks: bool = False


def named(methods: Sequence[str]) -> dict[str, str]:
    """Return methods by what they are called: a recipe file by its name, or its folder's.

    Raises:
        RequestError: there are fewer than two, or one is there twice.
    """
    names = [_name(method) for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"{', '.join(twice)} is there twice: every method is named once.")
    if len(names) < 2:
        raise RequestError("A comparison needs two methods or more.")
    return dict(zip(names, methods, strict=True))


def _name(method: str) -> str:
    path = Path(method)
    if path.suffix != ".toml":
        return method
    return path.resolve().parent.name if path.stem == "recipe" else path.stem


def entrants(wanted: Wanted, tell: Tell) -> list[Entrant]:
    """Rehearse every method, and divide the compute.

    Raises:
        RequestError: a method cannot be run like this, the data have no labels to compare
            by, or networks differ.
    """
    found, problems = [], []
    for name, method in wanted.methods.items():
        tell(f"{name}: rehearsing")
        try:
            found.append(_entrant(name, method, wanted, tell))
        except RequestError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise RequestError(*problems)
    _refuse_unequal(found, wanted.own_networks)
    for each in found:
        _warn(each, tell)
    return found


def _entrant(name: str, method: str, wanted: Wanted, tell: Tell) -> Entrant:
    from coview.training.request import Request
    from coview.training.start import rehearse

    given = attrs.evolve(wanted.common, method=None).given()
    settings = {"data": given.pop("data"), "device": wanted.asked.device}
    run = rehearse(Request(method=method, settings=settings, changes=Changes(**given)))
    if not run.data.labelled:
        raise RequestError("These images have no labels, by which methods could be compared.")
    plan, backbone = run.plan, run.method.backbone()
    shapes = [tuple(tensor.shape) for tensor in backbone.state_dict().values()]
    return Entrant(
        name=name,
        network=run.card.backbone,
        shapes=str(shapes),
        channels=plan.channels,
        size=plan.image_size,
        batch=plan.batch_size,
        images=plan.dataset_size,
        steps_per_epoch=plan.steps_per_epoch,
        warmup=getattr(run.schedule, "warmup", 0),
        steps=_steps(name, run, wanted, tell),
    )


def _steps(name: str, run: Run, wanted: Wanted, tell: Tell) -> int:
    compute = wanted.compute
    if compute.steps is not None:
        return compute.steps
    if compute.images is not None:
        return max(1, round(compute.images / run.plan.batch_size))
    assert compute.seconds is not None
    return max(1, int(compute.seconds / _pace(name, run, wanted, tell)))


def _pace(name: str, run: Run, wanted: Wanted, tell: Tell) -> float:
    """Return the seconds of a step: as measured before, or measured now and kept."""
    from coview.recipes.recipe import to_toml
    from coview.training.pace import step_seconds

    file = wanted.asked.out / PACES
    known: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    facts = f"{to_toml(run.resolved.recipe)}\n{run.data.fingerprint} on {run.device}"
    key = f"{name} {hashlib.blake2b(facts.encode(), digest_size=8).hexdigest()}"
    if key not in known:
        tell(f"{name}: measuring the time of a step")
        known[key] = step_seconds(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
    return float(known[key])


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
            method=wanted.methods[each.name], epochs=each.epochs, max_steps=each.steps
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
