"""Read checkpoints, and load a run's encoder, projection head included, from one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from coview.errors import CoviewError, RequestError
from coview.nn.backbones import BackboneSpec
from coview.nn.encoder import Encoder
from coview.plan import Plan
from coview.recipes.configure import Changes, configure
from coview.weights.card import WeightCard

FORMAT = 1
PREFIX = "components.encoder."


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint: all checksums are compared, and nothing in it is executed.

    Raises:
        RequestError: there is no such file.
        CoviewError: it is damaged, or holds more than data.
    """
    if not path.is_file():
        raise RequestError(f"There is no checkpoint at {path}; the run cannot be resumed.")
    try:
        _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CoviewError(f"{path} is damaged, or not a coview checkpoint: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CoviewError(f"{path} is not a checkpoint that this version of coview can read.")
    return state


def _check_sums(path: Path) -> None:
    """Compare every part with its stored checksum, which torch itself does not do."""
    with zipfile.ZipFile(path) as archive:
        wrong = archive.testzip()
    if wrong is not None:
        raise CoviewError(f"the checksum of its part {wrong} is wrong")


def load_encoder(run: Path, card: WeightCard) -> Encoder:
    """Build a run's encoder and load its checkpoint.

    Args:
        run: the run's directory.
        card: the card of its exported backbone.

    Raises:
        RequestError: it is not a run, has no checkpoint, or its backbone was a Python object.
        CoviewError: the checkpoint does not fit.
    """
    if not (run / "recipe.toml").is_file():
        raise RequestError(
            f"{run} is not a run's directory; only a run's checkpoint has the projection head."
        )
    if card.given and card.code is None:
        raise RequestError(f"The backbone of {run} was a Python object: use --from head.0.")
    resolved = configure(run / "recipe.toml", None, Changes(preset="none"), "run")
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    state = read(run / "checkpoints" / "last.pt")["method"]
    part = resolved.part("backbone")
    plan = Plan(
        dataset_size=facts["data"]["train_images"],
        channels=card.channels,
        image_size=card.image_size,
        mean=(0.0,) * card.channels,
        std=(1.0,) * card.channels,
        batch_size=resolved.training.batch_size,
        backbone=BackboneSpec(part.name, part.factory, part.settings),
    )
    of_views, of_encoder = resolved.part("views"), resolved.part("encoder")
    views = of_views.factory(of_views.settings, plan)
    encoder = of_encoder.factory(of_encoder.settings, attrs.evolve(plan, layout=views.layout))
    own = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    try:
        encoder.load_state_dict(own)
    except RuntimeError as error:
        raise CoviewError(f"The checkpoint of {run} does not fit its recipe: {error}") from error
    built: Encoder = encoder
    return built


def cut(encoder: Encoder, layers: int) -> tuple[nn.Module, int]:
    """Return the first ``layers`` layers of the projection head, and their output width.

    Raises:
        RequestError: the head has fewer layers, or is not a stack of layers.
    """
    head = encoder.projector
    if not isinstance(head, nn.Sequential):
        raise RequestError("This method's projection head is not a stack of layers: use head.0.")
    if layers > len(head):
        raise RequestError(
            f"--from head.{layers}: the projection head has {len(head)} layers. Choose "
            f"head.0 (the backbone) to head.{len(head)}."
        )
    kept = head[:layers]
    widths = [m.out_features for m in kept.modules() if isinstance(m, nn.Linear)]
    return kept, widths[-1] if widths else encoder.features
