"""A run's directory: its name, and the files that describe the run."""

from __future__ import annotations

import json
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from coview.errors import RequestError
from coview.files import write_json, write_text
from coview.locks import Hold
from coview.recipes.recipe import to_toml
from coview.recipes.resolve import CORE
from coview.training.agreement import LIBRARIES
from coview.training.run import Run
from coview.training.taken import refuse_taken
from coview.weights.own import own_facts

METRICS = "metrics.jsonl"


def new_directory(path: Path) -> None:
    """Make a run's directory.

    Raises:
        RequestError: it already holds a run, or cannot be made.
    """
    refuse_taken(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{path} cannot be made for the run: {error.strerror}.") from error


def hold(path: Path) -> Hold:
    """Keep other processes from writing into a run's directory.

    Raises:
        RequestError: another process is training there.
        CoviewError: the directory cannot be written to.
    """
    return Hold(
        path / ".lock",
        f"Another process is training into {path}. Wait until it has ended, or choose another "
        "--out.",
    )


def default_directory(recipe: str, data: str) -> Path:
    """Return ``runs/METHOD-DATA-TIME``, with a number added if that exists."""
    plain = "".join(c if c.isalnum() else "-" for c in data).strip("-")[-40:]
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = base = Path("runs") / f"{recipe or 'method'}-{plain}-{time}"
    number = 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def made(path: Path) -> Path:
    """Make a directory, with a number added if another process has made it in the meantime.

    Raises:
        RequestError: it cannot be made.
    """
    base, number = path, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = base.with_name(f"{base.name}-{number}")
        except OSError as error:
            raise RequestError(f"{path} cannot be made for the run: {error.strerror}.") from error
        else:
            return path


def write_start(run: Run, command: list[str], **more: Any) -> None:
    """Write ``recipe.toml`` and ``run.json``, with more facts, before the first step."""
    _write_recipe(run)
    write_json(run.path / "run.json", {**_facts(run, command), "finished": None, **more})


def write_changes(run: Run, command: list[str]) -> None:
    """Rewrite both after a resume that changed the run; ``run.json`` lists all changes."""
    path = run.path / "run.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    change = {
        "step": run.step,
        "command": command,
        "time": _now(),
        "changed": {key: list(values) for key, values in run.changed.items()},
        "result": run.earlier,
    }
    kept = {key: before[key] for key in ("command", "started")}
    history = [*before.get("changes", []), change]
    facts = {**_facts(run, command), **kept, "finished": None, "changes": history}
    _write_recipe(run)
    write_json(path, facts)


def _write_recipe(run: Run) -> None:
    write_text(run.path / "recipe.toml", to_toml(run.resolved.recipe, run=run.settings.repeated()))


def write_end(run: Run) -> None:
    """Add the time of the end to ``run.json``."""
    path = run.path / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**facts, "finished": _now(), "steps": run.step})


def write_failure(run: Run, error: Exception) -> None:
    """Add to ``run.json`` that the run failed, and why; a resume takes it away."""
    path = run.path / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**facts, "failed": str(error)})


def clear_failure(path: Path) -> None:
    """Take away what :func:`write_failure` added, as the run goes on."""
    facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
    if facts.pop("failed", None) is not None:
        write_json(path / "run.json", facts)


def _facts(run: Run, command: list[str]) -> dict[str, Any]:
    used = {part.package for parts in run.resolved.parts.values() for part in parts}
    device = run.device
    cuda = device.type == "cuda"
    return {
        "command": command,
        "method": run.resolved.recipe.name,
        "seed": run.settings.seed,
        "data": {
            "name": run.data.name,
            "fingerprint": run.data.fingerprint,
            "train_images": len(run.data.train),
            "notes": list(run.data.notes),
            "bad_images": run.data.bad_images,
            "reading": dict(run.data.reading),
            "summary": dict(run.data.summary),
        },
        "own": own_facts(run.resolved),
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "precision": run.settings.precision,
        "settings": run.settings.table(),
        "packages": {name: metadata.version(name) for name in sorted(used | {CORE})},
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "python": sys.version.split()[0],
        "observers": list(run.settings.observe),
        "notices": list(run.resolved.notices),
        "started": _now(),
    }


def write_bad_images(run: Run) -> None:
    """Update the list of unreadable images in ``run.json``."""
    path = run.path / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**facts, "data": {**facts["data"], "bad_images": run.data.bad_images}})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def cut_metrics(
    path: Path, step: int, most: int | None = None, finished: bool = False
) -> list[dict[str, Any]]:
    """Cut ``metrics.jsonl`` back to what was logged up to ``step``; return what is left.

    A run that resumes before its first step measures its baselines again, one that is not
    finished its trained network, and one that resumes before an epoch's end was done has
    ``most`` entries from before it.
    """
    file = path / METRICS
    kept = [
        entry
        for entry in (readable_lines(file) if file.exists() else ())
        if finished or (entry["step"] <= step and step > 0 and "knn" not in entry)
    ][:most]
    write_text(file, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept


def readable_lines(file: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of metrics, up to a line that cannot be read."""
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the line that was being written when the run died
    return entries
