"""The views of a run and its embeddings, for TensorBoard's and W&B's own viewers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

import coview
from coview.api.subjects import subject
from coview.data.loader import read_batches
from coview.data.picking import evenly
from coview.data.splits import part
from coview.distributed import is_first
from coview.errors import RequestError
from coview.evaluation.features import features
from coview.hookspecs import hookimpl
from coview.settings import ge, setting

THUMBNAIL = 32
"""Pixels per side of the images of embeddings: TensorBoard puts all of them into one picture."""


@attrs.frozen
class Settings:
    """How much is shown."""

    images: int = setting(500, "test images whose embeddings are shown", ge(3))


@attrs.frozen(eq=False)
class Embedded:
    """Embeddings of images, with the images and the names of their classes."""

    vectors: Tensor
    images: Tensor
    classes: tuple[str, ...] | None


class Pictures:
    """Base class: shows the views at the start of a run, and the embeddings at its end."""

    Settings = Settings

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def show_views(self, run: Any, picture: np.ndarray[Any, Any]) -> None:
        """Show a picture (H, W, 3) uint8."""
        raise NotImplementedError

    def show_embeddings(self, run: Any, found: Embedded) -> None:
        """Show embeddings."""
        raise NotImplementedError

    @hookimpl(trylast=True)  # after the observer whose run they go to
    def run_started(self, run: Any) -> None:
        """Draw the views that this run trains on; a resumed run showed them before."""
        if not is_first() or run.step:
            return
        with tempfile.TemporaryDirectory() as folder:
            sheet = Path(folder) / "views.png"
            coview.views(run, out=sheet, images=6, draws=1)
            with Image.open(sheet) as opened:
                self.show_views(run, np.asarray(opened.convert("RGB")))

    @hookimpl(trylast=True)
    def run_finished(self, run: Any) -> None:
        """Compute the embeddings of some images that were not trained on."""
        if is_first():
            self.show_embeddings(run, embedded(run, self.settings.images))


class TensorboardPictures(Pictures):
    """Writes views and embeddings into the run's folder ``tensorboard``: images and projector."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RequestError(
                "--observe tensorboard-pictures needs: pip install tensorboard"
            ) from error
        self._make: Any = SummaryWriter

    def show_views(self, run: Any, picture: np.ndarray[Any, Any]) -> None:
        """Write an image."""
        with self._make(log_dir=str(run.path / "tensorboard")) as writer:
            writer.add_image("views", picture, run.step, dataformats="HWC")

    def show_embeddings(self, run: Any, found: Embedded) -> None:
        """Write vectors, their images and classes."""
        with self._make(log_dir=str(run.path / "tensorboard")) as writer:
            classes = None if found.classes is None else list(found.classes)
            writer.add_embedding(found.vectors, classes, found.images, run.step, "embeddings")


class WandbPictures(Pictures):
    """Adds views and a table of embeddings to the run of ``--observe wandb``, which it needs."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        try:
            import wandb
        except ImportError as error:
            raise RequestError("--observe wandb-pictures needs: pip install wandb") from error
        self._wandb: Any = wandb

    def show_views(self, run: Any, picture: np.ndarray[Any, Any]) -> None:
        """Send an image."""
        self._run().log({"views": self._wandb.Image(picture), "step": run.step})

    def show_embeddings(self, run: Any, found: Embedded) -> None:
        """Send a table, of which wandb draws a projection."""
        columns = ["image", "class", *(f"e{n}" for n in range(found.vectors.shape[1]))]
        table = self._wandb.Table(columns=columns)
        for number, vector in enumerate(found.vectors.tolist()):
            image = (found.images[number].permute(1, 2, 0) * 255).byte().numpy()
            name = "" if found.classes is None else found.classes[number]
            table.add_data(self._wandb.Image(image), name, *vector)
        self._run().log({"embeddings": table, "step": run.step})

    def _run(self) -> Any:
        if self._wandb.run is None:
            raise RequestError(
                "wandb-pictures adds to another observer's run: give --observe wandb too."
            )
        return self._wandb.run


def embedded(run: Any, most: int) -> Embedded:
    """Return embeddings of at most ``most`` test images, spread over the classes.

    Args:
        run: a finished run in memory.
        most: number of images.
    """
    looked_at = subject(run, None, device=str(run.device), workers=run.settings.workers)
    data = looked_at.data
    split = data.train if data.test is None else data.test
    rows = evenly(split, most)
    vectors = features(looked_at.network, part(split, rows), whole=True, **looked_at.options)
    batches = read_batches(split, list(rows.split(256)))
    images = torch.cat([_small(image) for batch in batches for image in batch])
    labels = None if split.labels is None else [int(split.labels[row]) for row in rows.tolist()]
    classes = None if labels is None else tuple(_named(data.classes, label) for label in labels)
    return Embedded(vectors.cpu().float(), images, classes)


def _named(classes: Any, label: int) -> str:
    return str(classes[label]) if label < len(classes) else str(label)


def _small(image: Tensor) -> Tensor:
    """(C, H, W) uint8 -> (1, 3, THUMBNAIL, THUMBNAIL) in [0, 1]."""
    three = image if len(image) == 3 else image.float().mean(dim=0, keepdim=True).expand(3, -1, -1)
    return interpolate(three[None].float() / 255, size=(THUMBNAIL, THUMBNAIL), mode="area")
