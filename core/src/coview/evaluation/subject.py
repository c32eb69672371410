"""What is evaluated: weights on a device, and the data to measure them on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from coview.data.base import DataSettings, ImageData
from coview.data.sources import open_source
from coview.data.sources.arrays import OBJECT
from coview.errors import RequestError
from coview.evaluation.results import facts_of, recipe_of
from coview.recipes.tables import POLICIES
from coview.settings import ge, one_of, setting, structure
from coview.weights.card import WeightCard
from coview.weights.exported import ExportedBackbone


@attrs.frozen
class Computing:
    """How features are computed; it changes no result but the choice of bad images."""

    batch_size: int = setting(256, "images at once", ge(1))
    workers: int = setting(0, "processes that decode images", ge(0))
    on_bad_image: str = setting(
        "skip", "what to do with unreadable images: skip or stop", one_of(*POLICIES)
    )


def computing(**values: Any) -> Computing:
    """Return :class:`Computing` with these values.

    Raises:
        RequestError: with every problem found.
    """
    made, problems = structure(Computing, values, "")
    if problems:
        raise RequestError(*problems)
    found: Computing = made
    return found


@attrs.define(eq=False)
class Subject:
    """Weights on a device, and data, which are loaded when they are first asked for.

    Attributes:
        weights: as the user named them: a run's directory, a file, or ``timm:NAME``.
        network: their backbone, (B, C, H, W) in [0, 1] -> (B, D), on the device.
        device: where features are computed.
        computing: batch size, workers and what happens to unreadable images.
        given: the data that the user named or passed; None: the run's own.
        own: the run's own data, if they are in memory.
        origin: of weights that coview did not train, see
            :class:`coview.weights.open.Weights`.
        notes: what the user should know of the weights before anything is measured.
        say: prints a note, once the data could be loaded.
        loaded: the data sets loaded so far.
        settings: settings of the data that replace those of training, by name.
    """

    weights: Path
    network: ExportedBackbone
    device: torch.device
    computing: Computing
    given: Any = None
    own: ImageData | None = None
    origin: str | None = None
    notes: Iterable[str] = ()
    say: Callable[[str], None] | None = None
    loaded: list[ImageData] = attrs.field(factory=list)
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    _data: ImageData | None = None

    @property
    def data(self) -> ImageData:
        """The data to measure on.

        Raises:
            RequestError: none were given, and the weights record none.
        """
        if self._data is None:
            self._data = self.load(self.own if self.given is None else self.given)
        return self._data

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the functions that compute features."""
        return {
            "batch_size": self.computing.batch_size,
            "device": self.device,
            "workers": self.computing.workers,
        }

    def load(self, data: Any) -> ImageData:
        """Load a data set as this network takes it.

        Args:
            data: a name, a path, a Python object or loaded data; None: the run's own.
        """
        loaded: ImageData
        if isinstance(data, ImageData):
            loaded = data
        else:
            loaded = load_like(
                own_data(self.weights) if data is None else data,
                self.network.card,
                workers=self.computing.workers,
                on_bad_image=self.computing.on_bad_image,
                **{**(own_split(self.weights) if data is None else {}), **self.settings},
            )
        if self.say is not None and not self.loaded:
            for note in self.notes:
                self.say(note)
        if self.say is not None and loaded is not self.own:
            for note in loaded.remarks:
                self.say(note)
        self.loaded.append(loaded)
        return loaded


def load_like(data: Any, card: WeightCard, *, workers: int = 0, **settings: Any) -> ImageData:
    """Load data as a backbone's training did: same size, channels and meaning of values.

    Args:
        data: a name, a path or a Python object.
        card: the backbone's card.
        workers: processes that decode images.
        **settings: other settings of the data (:class:`coview.recipes.tables.DataSettings`).

    Raises:
        RequestError: a setting is unknown or wrong.
    """
    wanted, problems = structure(DataSettings, {**card.loading(), **settings}, "data")
    if problems:
        raise RequestError(*problems)
    return open_source(data).load(wanted, workers)


def own_data(weights: Path) -> str:
    """Return the name of the data that a run was trained on.

    Raises:
        RequestError: ``weights`` is not a run's directory, or its data had no name.
    """
    if not (weights / "run.json").is_file():
        raise RequestError(
            "Name the data (--data, in Python data=): only a run records what it was trained on."
        )
    name: str = facts_of(weights)["data"]["name"]
    if name == OBJECT:
        raise RequestError(
            "This run's data were a Python object: name other data (--data), or pass the object "
            "in Python (data=)."
        )
    return name


def own_split(weights: Path) -> dict[str, Any]:
    """Return the data settings by which a run held out its test images.

    A run that held nothing out is measured with the usual share of its images.
    """
    data = recipe_of(weights).get("data", {})
    return {"holdout": data["holdout"]} if data.get("holdout") else {}
