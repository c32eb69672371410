"""What a run records of a network and views of the user's own, and how it is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from coview.own_code import Loaded, digest, load
from coview.recipes.resolve import GIVEN, Part, Resolved

TABLES = {"backbone": "The network is made", "views": "The views are made"}
"""What of a recipe may be the user's own, and how a sentence on it begins."""


def is_own(part: Part) -> bool:
    """Whether a part of a recipe is the user's own: a Python object, or named code."""
    return part.name.startswith(GIVEN) or code_of(part) is not None


def code_of(part: Part) -> Loaded | None:
    """Return the code that a part of a recipe names, imported; None: it is something else."""
    loaded = getattr(part.factory, "loaded", None)
    return loaded if isinstance(loaded, Loaded) else None


def own_facts(resolved: Resolved) -> dict[str, dict[str, Any]]:
    """Return what a run records of the parts of the user's own, for ``run.json``."""
    found: dict[str, dict[str, Any]] = {}
    for table in TABLES:
        for part in filter(is_own, resolved.parts[table]):
            loaded = code_of(part)
            given = {"object": part.name.removeprefix(GIVEN)}
            found.setdefault(table, given if loaded is None else loaded.facts())
    return found


def own_notes(resolved: Resolved) -> list[str]:
    """Return a sentence on each part that is the user's own: what the run records of it."""
    return [
        f"{said} by {_recorded(table, part)}"
        for table, said in TABLES.items()
        for part in filter(is_own, resolved.parts[table])
    ]


def _recorded(table: str, part: Part) -> str:
    loaded = code_of(part)
    if loaded is not None:
        return (
            f"{loaded.where}. The run records this name, and commands on the run import it again."
        )
    again = " and to load its weights" if table == "backbone" else ""
    return (
        f"a Python object ({part.name.removeprefix(GIVEN)}), which a run cannot record: pass it "
        f"again to resume{again}. The name of a function would be recorded: FILE.py:FUNCTION or "
        "MODULE:FUNCTION."
    )


@attrs.frozen
class Recorded:
    """Code that a run's directory names.

    Attributes:
        code: ``file.py:name`` or ``module:name``.
        digest: of the file when the run began; None: not recorded.
    """

    code: str
    digest: str | None = None

    def note(self) -> str:
        """Import the code, and return a sentence that says what was imported from where."""
        loaded = load(self.code)
        note = f"imported {loaded.where}, as the run's directory says."
        if loaded.file and self.digest and digest(loaded.file) != self.digest:
            note += " The file has changed since the run began."
        return note


def recorded(run: Path, table: str = "backbone") -> Recorded | None:
    """Return the code that a run's directory names for a part of its recipe, if any."""
    file = run / "run.json"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))["own"][table]
        return Recorded(facts["code"], facts.get("digest"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
