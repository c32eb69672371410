"""Safetensors files of coview's: tensors, and beside them what network they are of."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from coview.errors import CoviewError

BACKBONE = "coview"
"""The metadata's key of a file that holds a backbone."""
CLASSIFIER = "coview-classifier"
"""The same, of one that holds a classifier on a backbone."""
INSIDE = "network.backbone."
"""What the names of the backbone's tensors start with in a classifier's file."""


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return a file's metadata and tensors.

    Raises:
        CoviewError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return dict(opened.metadata() or {}), tensors
    except SafetensorError as error:
        raise CoviewError(f"{path} is not a whole safetensors file: {error}") from error


def is_foreign(path: Path) -> bool:
    """Whether a file is there that coview did not write: another program's weights."""
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="pt") as opened:
            return not {BACKBONE, CLASSIFIER} & set(opened.metadata() or {})
    except SafetensorError:
        return False
