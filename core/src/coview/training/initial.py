"""``--init``: weights that a run starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coview.errors import RequestError
from coview.method.module import Method
from coview.weights.exported import is_foreign, load_backbone, refuse_other_heads
from coview.weights.foreign import load_into, match, read_tensors


def initialise(method: Method, weights: Path | None, notice: Callable[[str], None]) -> None:
    """Load a backbone's weights: a run's, an exported file's, or another program's.

    Raises:
        RequestError: they do not fit this backbone.
    """
    if weights is None:
        return
    if is_foreign(weights):
        backbone = method.encoder.backbone()
        matched = match(read_tensors(weights), backbone, weights)
        load_into(backbone, matched)
        _share(method, backbone.state_dict())
        notice(matched.report(weights))
        return
    exported = load_backbone(weights)
    refuse_other_heads(exported.meta, method.encoder.trunk, weights)
    loaded = exported.backbone.state_dict()
    try:
        method.encoder.backbone().load_state_dict(loaded)
    except RuntimeError as error:
        raise RequestError(f"--init {weights} does not fit this backbone: {error}") from error
    _share(method, loaded)


def _share(method: Method, backbone: dict[str, Any]) -> None:
    target = method.components["target"]
    if hasattr(target, "backbone"):
        target.backbone().load_state_dict(backbone)  # type: ignore[operator]
