"""What a directory tells of the run that it holds, without an import of torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coview.errors import CoviewError, RequestError


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


def read_facts(file: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises:
        RequestError: there is no such file.
        CoviewError: it is damaged.
    """
    if not file.is_file():
        raise RequestError(f"There is no run at {file.parent} to resume.")
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        facts["data"]["name"], facts["method"], facts["seed"], facts["precision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CoviewError(f"{file} is damaged: {error!r}.") from error
    return facts
