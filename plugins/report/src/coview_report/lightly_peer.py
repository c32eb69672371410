"""lightly as a peer: its own loops of six methods, with the settings that a recipe shares with it.

What both have a word for is the recipe's: the temperature, the heads' widths, the queue's size,
the decay of a moving average, the strength of the views. The rest is lightly's: how heads are
built, the loss, the transform, when the target moves, one draw of the views for each image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import attrs

from coview.errors import RequestError
from coview.schedules import Schedule
from coview.studies.peers import Loop, Peer, Views
from coview.training.run import Run

NAMES: Mapping[str, str] = {
    "hidden": "encoder.hidden",
    "dim": "encoder.dim",
    "predictor_hidden": "encoder.predictor_hidden",
    "bottleneck": "encoder.bottleneck",
    "temperature": "loss.temperature",
    "teacher_temperature": "loss.teacher_temperature",
    "centre_momentum": "loss.centre_momentum",
    "epsilon": "loss.epsilon",
    "queue": "negatives.size",
}
"""coview's names of what a loop of another library is given."""
OTHERWISE: Mapping[str, Mapping[str, str]] = {
    "swav": {"prototypes": "encoder.prototypes", "freeze_epochs": "encoder.freeze_epochs"},
    "dino": {
        "prototypes": "encoder.dim",
        "freeze_epochs": "encoder.freeze_last_epochs",
        "temperature": "loss.student_temperature",
    },
}
"""Where a method has another name for it."""
GREY_OR_COLOUR = (1, 3)


class Lightly(Peer):
    """Lightly's own loops, as the examples of its documentation have them."""

    package = "lightly"
    methods = ("simclr", "moco-v2", "byol", "simsiam", "swav", "dino")

    def loop(self, method: str, run: Run) -> Loop:
        """Return lightly's loop of a method around the run's network."""
        from coview_report.lightly_loops import LOOPS

        loop = LOOPS[method](run.method.encoder.trunk, of_the_recipe(method, run))
        loop.scale = scale(run)
        return loop

    def views(self, method: str, run: Run) -> Views:
        """Return lightly's transform of a method, as strong as the recipe's views."""
        from coview_report.lightly_loops import views

        return views(method, run.card.size, of_the_views(run))


def scale(run: Run) -> float:
    """Return by what lightly's loss is multiplied: a learning rate is chosen for a loss's scale.

    coview's BYOL adds squared distances of both directions, as its paper does; lightly takes
    the mean of negative cosines, whose gradient is a quarter of that.
    """
    asked = run.resolved.part("loss").settings
    both = 2.0 if getattr(asked, "reduction", "mean") == "sum" else 1.0
    return both * (2.0 if getattr(asked, "form", "") == "squared-distance" else 1.0)


def of_the_recipe(method: str, run: Run) -> SimpleNamespace:
    """Return what a loop is given, from a run's recipe.

    Raises:
        RequestError: a value changes during training, which lightly's parts do not know.
    """
    found = dict(_named(method, run))
    changing = [name for name, value in found.items() if isinstance(value, Schedule)]
    if changing:
        names = {**NAMES, **OTHERWISE.get(method, {})}
        told = ", ".join(f"--set {names[name]}=NUMBER" for name in changing)
        raise RequestError(f"lightly's {method} takes one number for the whole training: {told}")
    if found.get("hidden") is None:
        found["hidden"] = run.method.encoder.features
    if method == "dino":
        found["batch_norm"] = run.resolved.part("encoder").settings.norm == "batch"
        found["freeze_epochs"] = round(found["freeze_epochs"])
    decay = getattr(run.resolved.part("target").settings, "decay", None)
    found["decay"] = decay.at if isinstance(decay, Schedule) else lambda at: decay
    return SimpleNamespace(**found)


def _named(method: str, run: Run) -> Iterator[tuple[str, Any]]:
    for name, place in {**NAMES, **OTHERWISE.get(method, {})}.items():
        role, _, key = place.partition(".")
        settings = run.resolved.part(role).settings
        if hasattr(settings, key):
            yield name, getattr(settings, key)


def of_the_views(run: Run) -> SimpleNamespace:
    """Return how strong the views are, from a run's recipe.

    Raises:
        RequestError: the recipe's views, or the images, are none that lightly's loops take here.
    """
    asked = attrs.asdict(run.resolved.part("views").settings, recurse=False)
    count = sum(asked.get("count", 2)) if _many(asked.get("count")) else asked.get("count", 2)
    if count != 2:
        raise RequestError(
            f"lightly's loops here take 2 views of an image, not {count}: choose a preset that "
            "has 2, such as --preset small."
        )
    if run.card.channels not in GREY_OR_COLOUR:
        raise RequestError(
            f"lightly's transforms take grey or colour images, not {run.card.channels} channels."
        )
    scale = asked["crop_scale"]
    least, most = scale[0] if _many(scale[0]) else scale
    if most != 1:
        raise RequestError(
            f"lightly's crops are of up to the whole image, not {most:g} of it: "
            f"--set views.crop_scale=[{least:g},1.0]"
        )
    return SimpleNamespace(
        **{name: asked[name] for name in ("jitter", "jitter_p", "grey_p", "flip_p")},
        crop_scale=(least, most),
        blur_p=_of_both("blur_p", asked),
        blur_sigma=tuple(asked["blur_sigma"]),
        solarize_p=_of_both("solarize_p", asked),
        normalize={"mean": list(run.card.mean), "std": list(run.card.std)},
    )


def _many(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _of_both(name: str, asked: Mapping[str, Any]) -> tuple[float, float]:
    """Return a probability of the first and of the second view."""
    value = asked[name]
    first, second = (value[0], value[-1]) if isinstance(value, Sequence) else (value, value)
    return first, asked.get(f"second_{name}", second)
