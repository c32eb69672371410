"""Weights and data as users name or pass them, made ready to be evaluated or embedded."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

    from coview.data.base import ImageData
    from coview.evaluation.subject import Subject
    from coview.training.run import Run
    from coview.weights.open import Weights


def subject(
    weights: str | Path | Run,
    data: Any,
    *,
    device: str = "auto",
    backbone: str | nn.Module | None = None,
    pretrained: bool = False,
    set: Mapping[str, Any] | None = None,
    **computing: Any,
) -> Subject:
    """Open weights, and prepare to load the data.

    Args:
        weights: a run's directory, a file, ``timm:NAME``, or a finished run.
        data: a name, a path or an object; None: the run's own.
        device, backbone, pretrained, set: see :func:`coview.evaluate`.
        **computing: see :class:`coview.evaluation.subject.Computing`.
    """
    from coview.evaluation import subject as subjects
    from coview.training.device import pick_device

    chosen = subjects.computing(**computing)
    place = pick_device(device)
    found = opened(weights, backbone, pretrained)
    return subjects.Subject(
        path_of(weights),
        found.network.to(place),
        place,
        chosen,
        data,
        getattr(weights, "data", None),  # a finished run's, which are in memory
        found.origin,
        found.notes,
        tell_note,
        settings={key.removeprefix("data."): value for key, value in (set or {}).items()},
    )


def opened(
    weights: str | Path | Run, backbone: str | nn.Module | None = None, pretrained: bool = False
) -> Weights:
    """Load weights. A finished run's network is copied, since evaluation may train it."""
    import torch

    from coview.training.run import Run
    from coview.weights.exported import export
    from coview.weights.open import Weights, open_weights

    if isinstance(weights, Run):
        if backbone is not None or pretrained:
            raise RequestError("This run has its network: leave out backbone and pretrained.")
        # As weights from a file are laid out: others round otherwise in the last digit.
        network = copy.deepcopy(export(weights.method, weights.card)).eval()
        return Weights(network.to(memory_format=torch.contiguous_format))
    if pretrained:
        tell(
            [
                f"loading the published weights of {weights}, "
                "downloading them if needed (without a network, this fails after a minute)"
            ]
        )
    given = backbone if isinstance(backbone, str) else copy.deepcopy(backbone)
    return open_weights(path_of(weights), backbone=given, pretrained=pretrained)


def path_of(weights: str | Path | Run) -> Path:
    """Return a run's directory, or the path or name that stands for weights."""
    path = getattr(weights, "path", weights)
    if not isinstance(path, (str, Path)):
        raise RequestError(
            "Weights must be a run, its directory, a file, or timm:NAME, not "
            f"{type(weights).__name__}."
        )
    return Path(path)


def tell_note(note: str) -> None:
    """Print a note on weights on stderr."""
    tell([f"note: {note}"])


def tell(sentences: Iterable[str]) -> None:
    """Print sentences on stderr."""
    for sentence in sentences:
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()


def tell_bad_images(data: ImageData, fate: str = "are left out") -> dict[str, Any]:
    """Report unreadable images and their fate on stderr; return them for JSON."""
    found = data.bad_images
    for kind, facts in found.items():
        tell(
            [
                f"{facts['count']} {kind} images of {data.name} cannot be read and {fate}:",
                *(f"  {sentence}" for sentence in facts["first"]),
            ]
        )
    return {"bad_images": found} if found else {}
