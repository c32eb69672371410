"""An index of runs: a table in SQLite that follows the runs' directories, which stay the truth."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from coview.errors import RequestError
from coview_report.states import LOCK, state, without_lock

FILE = ".coview-runs.sqlite"
VERSION = 1
"""Of the table; an index of another version is made anew."""
WATCHED = ("run.json", "recipe.toml", "metrics.jsonl", "evaluations.jsonl")
"""Files of a run whose size or time, if it changes, has the run read again."""
COLUMNS = {
    "run": "TEXT PRIMARY KEY",
    "method": "TEXT",
    "data": "TEXT",
    "state": "TEXT",
    "epoch": "REAL",
    "step": "INTEGER",
    "loss": "REAL",
    "knn_top1": "REAL",
    "untrained_knn_top1": "REAL",
    "raw_pixels_knn_top1": "REAL",
    "linear_top1": "REAL",
    "seed": "INTEGER",
    "preset": "TEXT",
    "backbone": "TEXT",
    "epochs": "INTEGER",
    "batch_size": "INTEGER",
    "lr": "REAL",
    "device": "TEXT",
    "seconds": "REAL",
    "started": "TEXT",
    "finished": "TEXT",
    "failed": "TEXT",
    "settings": "TEXT",
}
"""What is known of a run; ``settings`` is JSON, by names like ``loss.temperature``."""
READ = ("loss", "knn_top1", "untrained_knn_top1", "raw_pixels_knn_top1", "epoch", "step")
Row = dict[str, Any]


_SETTING = re.compile(r"('(?:[^']|'')*'|\"[^\"]*\")|\b([a-z_]\w*(?:\.[a-z_]\w*)+)")
"""A text in quotes, which stays as it is, or the name of a setting with its table."""


def _extracted(found: re.Match[str]) -> str:
    quoted: str | None = found[1]
    return quoted or f"json_extract(settings, '$.\"{found[2]}\"')"


class Index:
    """The runs below a folder."""

    def __init__(self, folder: Path) -> None:
        """Bring the index up to date; a damaged one is made anew.

        Raises:
            RequestError: there is no such folder.
        """
        if not folder.is_dir():
            raise RequestError(f"There is no folder {folder}.")
        self.folder = folder
        try:
            self._database = _opened(folder / FILE)
            self._follow()
        except sqlite3.DatabaseError:
            # Another program's file, a damaged one, or a folder that is not to be written to.
            with suppress(OSError):
                (folder / FILE).unlink()
            try:
                self._database = _opened(folder / FILE)
                self._follow()
            except sqlite3.DatabaseError:
                self._database = _opened(None)
                self._follow()

    def rows(self, where: str = "", sort: str = "", limit: int = 0) -> tuple[list[Row], int]:
        """Return runs, and how many there are without the limit.

        Args:
            where: an expression of SQL over :data:`COLUMNS` and settings of the recipe, such
                as ``loss.temperature < 0.2``; empty: all.
            sort: a column; ``-COLUMN``: the largest first; empty: the newest first.
            limit: at most as many; 0: all.

        Raises:
            RequestError: the expression is no SQL, or there is no such column.
        """
        name = sort.lstrip("-")
        if name and name not in COLUMNS:
            raise RequestError(f"There is no column {name!r}: {', '.join(COLUMNS)}.")
        order = f'"{name}" IS NULL, "{name}"' if name else "started"
        order += " DESC" if sort.startswith("-") or not sort else ""
        condition = f"WHERE ({_SETTING.sub(_extracted, where)})" if where else ""
        query = f"SELECT {', '.join(COLUMNS)} FROM runs {condition} ORDER BY {order}, run"
        query += f" LIMIT {limit:d}" if limit else ""
        self._database.execute("PRAGMA query_only = 1")
        try:
            found = [dict(zip(COLUMNS, row, strict=True)) for row in self._database.execute(query)]
            count = f"SELECT count(*) FROM runs {condition}"
            return found, self._database.execute(count).fetchone()[0]
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise RequestError(
                f"--where {where}: {error}. Write it as in SQL, for example: method = 'byol' and "
                f"knn_top1 > 0.8. Columns: {', '.join(COLUMNS)}, and settings of the recipe like "
                "loss.temperature."
            ) from None
        finally:
            self._database.execute("PRAGMA query_only = 0")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _follow(self) -> None:
        """Read the runs that are new or changed, and forget those that are gone."""
        known = dict(self._database.execute("SELECT run, stamp FROM runs"))
        there = dict(_stamps(str(self.folder), len(str(self.folder)) + 1))
        changed = [name for name, stamp in there.items() if known.get(name) != stamp]
        if changed or len(known) > len(there):
            self._write(changed, there, known)
        self._judge()

    def _write(
        self, changed: Iterable[str], there: Mapping[str, str], known: Iterable[str]
    ) -> None:
        rows = (_row(self.folder, name, there[name]) for name in changed)
        names = ("stamp", *COLUMNS)
        with self._database as database:
            database.executemany(
                "DELETE FROM runs WHERE run = ?", [(name,) for name in known if name not in there]
            )
            database.executemany(
                f"INSERT OR REPLACE INTO runs ({', '.join(names)}) "
                f"VALUES ({', '.join('?' for _ in names)})",
                [tuple(row.get(name) for name in names) for row in rows],
            )

    def _judge(self) -> None:
        """Ask for the state of runs without an end: a kill changes none of their files."""
        open_runs = self._database.execute(
            "SELECT run, state, failed FROM runs WHERE finished IS NULL"
        ).fetchall()
        found = []
        for name, before, failed in open_runs:
            # Most runs have no lock, so nobody needs to be asked whether it is held.
            locked = os.path.exists(f"{self.folder}{os.sep}{name}{os.sep}{LOCK}")
            now = state(self.folder / name, {"failed": failed}) if locked else without_lock(failed)
            if now != before:
                found.append((now, name))
        if not found:
            return
        with self._database as database:
            database.executemany("UPDATE runs SET state = ? WHERE run = ?", found)


def _opened(file: Path | None) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:" if file is None else file, timeout=10)
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        database.execute("DROP TABLE IF EXISTS runs")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        database.execute(f"CREATE TABLE runs ({columns}, stamp TEXT)")
        database.execute(f"PRAGMA user_version = {VERSION:d}")
        database.commit()
    return database


def _stamps(folder: str, skip: int) -> Iterator[tuple[str, str]]:
    """Yield each run below a folder with what changes when one of its files does."""
    try:
        inside = list(os.scandir(folder))
    except OSError:
        return
    for entry in inside:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        stamp = _stamp(entry.path)
        if stamp is None:
            yield from _stamps(entry.path, skip)
        else:
            yield entry.path[skip:], stamp


def _stamp(path: str) -> str | None:
    """Return a run's stamp; None: it is no run."""
    parts = []
    for name in WATCHED:
        try:
            # Of ten thousand runs, paths as objects would take longer than all the rest.
            status = os.stat(f"{path}{os.sep}{name}")  # noqa: PTH116
        except OSError:
            if name == WATCHED[0]:
                return None
            continue
        parts.append(f"{status.st_mtime_ns}.{status.st_size}")
    return " ".join(parts)


def _row(folder: Path, name: str, stamp: str) -> Row:
    """Return what is known of a run."""
    path = folder / name
    facts = _json(path / "run.json")
    logged = dict(_last(path / "metrics.jsonl", READ))
    settings = _settings(path / "recipe.toml")
    given = facts.get("settings", {})
    return {
        **logged,
        "run": name,
        "stamp": stamp,
        "method": facts.get("method"),
        "data": facts.get("data", {}).get("name"),
        "state": state(path, facts),
        "linear_top1": _linear(path / "evaluations.jsonl"),
        "seed": facts.get("seed"),
        "preset": given.get("preset"),
        "backbone": settings.get("backbone"),
        "epochs": settings.get("epochs"),
        "batch_size": settings.get("batch_size"),
        "lr": settings.get("optimizer.lr"),
        "device": facts.get("device"),
        "seconds": _seconds(facts.get("started"), facts.get("finished")),
        "started": facts.get("started"),
        "finished": facts.get("finished"),
        "failed": facts.get("failed"),
        "settings": json.dumps(settings, default=str),
    }


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _last(file: Path, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the last value of each metric, reading as little of the file as that needs."""
    wanted = set(names)
    for line in reversed(_lines(file)):
        if not wanted:
            return
        if not any(name in line for name in wanted):
            continue
        with suppress(ValueError):
            entry = json.loads(line)
            if not isinstance(entry, dict):
                continue
            for name in wanted & entry.keys():
                yield name, entry[name]
            wanted -= entry.keys()


def _linear(file: Path) -> float | None:
    for line in reversed(_lines(file)):
        with suppress(ValueError):
            entry = json.loads(line)
            if entry.get("evaluation") == "linear" and "top1" in entry:
                return float(entry["top1"])
    return None


def _settings(file: Path) -> dict[str, Any]:
    try:
        recipe = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    apart = ("presets", "probe", "finetune", "run", "summary", "paper", "name")
    return dict(_flat("", {key: value for key, value in recipe.items() if key not in apart}))


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = ".".join(filter(None, (prefix, "" if key == "use" else key)))
        if isinstance(value, Mapping):
            yield from _flat(name, value)
        elif value != "none":
            yield name, value


def _seconds(started: str | None, finished: str | None) -> float | None:
    if not started or not finished:
        return None
    with suppress(ValueError):
        passed = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
        return passed.total_seconds()
    return None
