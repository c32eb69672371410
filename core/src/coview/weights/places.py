"""Weights that lie elsewhere, named ``PLACE:NAME``: a plugin fetches them.

An entry point in the group ``coview.weights`` has the name of the place and refers to a
function that takes NAME and returns the path of a file, or of a folder with a
``backbone.safetensors``.
"""

from __future__ import annotations

import re
from pathlib import Path

from coview.errors import RequestError, unknown
from coview.registry import entries, find

PLACE = re.compile(r"([a-z][a-z0-9-]+):(.+)")


def local(weights: str | Path) -> Path:
    """Return where weights lie on this machine; a path is returned as it is.

    Args:
        weights: a path, or ``PLACE:NAME``.

    Raises:
        RequestError: no installed package knows the place.
    """
    path, found = Path(weights), PLACE.fullmatch(str(weights))
    if found is None or path.exists():
        return path
    place, name = found.groups()
    known = {entry.name for entry in entries("weights")}
    if place not in known:
        raise RequestError(
            f"There is no file {path}, and {unknown('place of weights', place, known)}"
        )
    return Path(find("weights", place).load()(name))
