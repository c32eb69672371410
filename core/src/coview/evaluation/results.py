"""A run's evaluation results, kept in its directory, and those of several runs in rows."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coview.errors import CoviewError, RequestError
from coview.files import write_text
from coview.locks import Hold

FILE = "evaluations.jsonl"
PATIENCE = 60.0
"""Seconds; another evaluation holds the file for milliseconds."""
Row = dict[str, Any]
"""An evaluation of a run: what was trained, what was measured and how."""


def remember(weights: Path, result: dict[str, Any], command: Sequence[str]) -> None:
    """Add a result to a run's ``evaluations.jsonl``; do nothing for other weights.

    The file is replaced atomically: it has the old lines, or those and the new one. Of several
    evaluations that end at the same time, each waits for the one before.

    Raises:
        CoviewError: the run's directory cannot be written to.
    """
    if not (weights / "run.json").is_file():
        return
    file = weights / FILE
    trained = {"trained_epochs": _epochs(weights, recipe_of(weights))}
    time = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({**result, **trained, "command": list(command), "time": time})
    busy = f"Another process has been writing to {file} for {PATIENCE:.0f} seconds."
    with Hold(weights / f".{FILE}.lock", busy, PATIENCE):
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        write_text(file, f"{before}{line}\n")


def rows(runs: Iterable[Path]) -> list[Row]:
    """Return one row per evaluation: what was trained, how it was evaluated, by which command.

    Raises:
        RequestError: a path is not a run.
        CoviewError: a run's file of results is damaged.
    """
    return [row for run in runs for row in _of_run(run)]


def facts_of(run: Path) -> dict[str, Any]:
    """Return a run's ``run.json``.

    Raises:
        RequestError: there is no run.
    """
    if not (run / "run.json").is_file():
        raise RequestError(f"There is no run at {run}.")
    facts: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return facts


def recipe_of(run: Path) -> dict[str, Any]:
    """Return a run's ``recipe.toml``."""
    return tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))


def _of_run(run: Path) -> list[Row]:
    facts, recipe = facts_of(run), recipe_of(run)
    trained = {
        "run": str(run),
        "method": facts["method"],
        "trained_on": facts["data"]["name"],
        "trained_epochs": (now := _epochs(run, recipe)),
        "run_epochs": now,
        "train_seed": facts["seed"],
    }
    found = [
        {
            "evaluation": "knn",
            "data": facts["data"]["name"],
            **line["knn"],
            **({"trained_epochs": line["epoch"]} if "epoch" in line else {}),
            "command": facts["command"],
        }
        for line in _lines(run / "metrics.jsonl")
        if "knn" in line
    ]
    # Of the run's own data, unless the evaluation says otherwise.
    name, known = facts["data"]["name"], facts["data"].get("fingerprint")
    return [
        {**trained, **({"data_fingerprint": known} if known and row["data"] == name else {}), **row}
        for row in (*found, *_lines(run / FILE))
    ]


def _epochs(run: Path, recipe: dict[str, Any]) -> Any:
    """Return the epochs actually trained, fewer than planned if a run was interrupted."""
    done = [line["epoch"] for line in _lines(run / "metrics.jsonl") if "epoch" in line]
    asked = recipe.get("training", recipe).get("epochs")
    return done[-1] if done else asked


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except json.JSONDecodeError as error:
        raise CoviewError(f"{file} is damaged: {error}.") from error
