"""Packages written for a test, and made known as pip would make them known."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write a package's files."""
    for place, text in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def describe(folder: Path, name: str) -> None:
    """Write what pip would write of a package, from its pyproject.toml."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / "src" / f"coview_{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    header = f"Metadata-Version: 2.1\nName: coview-{name}\nVersion: 0.1.0\n"
    (info / "METADATA").write_text(header, encoding="utf-8")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def install(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a package importable and known, for the rest of a test."""
    describe(folder, name)
    monkeypatch.syspath_prepend(str(folder / "src"))
    module = f"coview_{name.replace('-', '_')}"
    for part in [module, *(f"{module}.{path.stem}" for path in (folder / "src").glob("*/*.py"))]:
        monkeypatch.delitem(sys.modules, part, raising=False)
