"""A directory that holds a run already."""

from __future__ import annotations

from pathlib import Path

from coview.errors import RequestError


def refuse_taken(path: Path) -> None:
    """Refuse a directory that already holds a run.

    Raises:
        RequestError: it holds a run.
    """
    if (path / "run.json").exists() or (path / "recipe.toml").exists():
        raise RequestError(
            f"{path} already holds a run. To continue it: coview train --resume {path}. Otherwise "
            "choose another --out."
        )
