"""Promises on what is written down: the recipe, its settings, its package."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import COMPONENTS, read_recipe, to_toml
from coview.recipes.resolve import Part, Resolved
from coview.registry import find
from coview.settings import fields_of, structure
from coview.testing.errors import NotTried, demand
from coview.testing.subject import Subject

HEAVY = ("torch", "torchvision", "kornia", "timm")


def loads(subject: Subject) -> None:
    """The recipe can be imported and has a summary. Without that a package is of no use."""
    demand(bool(subject.recipe.summary), "the recipe has no summary, which listings need")


def imports_no_torch(subject: Subject) -> None:
    """Importing the recipe does not import torch.

    `coview lineage` reads every installed recipe, so one slow recipe makes everybody
    wait. A recipe's module needs only ``from coview import Recipe, Use``.
    """
    if not isinstance(subject.method, str) or subject.method.endswith(".toml"):
        raise NotTried("the recipe is not registered by a package")
    module = find("methods", subject.method).value.partition(":")[0]
    code = f"import {module}, sys; print(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], **_quiet())
    demand(done.returncode == 0, f"{module} cannot be imported by itself: {done.stderr.strip()}")
    found = ", ".join(done.stdout.split())
    demand(not found, f"importing {module} imports {found}: keep components in other modules")


def imports_no_other_plugin(subject: Subject) -> None:
    """The package's modules do not import other plugins.

    A recipe names other packages' components. Code that imports them depends on the
    other package's internals, and breaks when that package moves a function.
    """
    packages = {name.partition(".")[0] for name in _modules(subject)}
    for path in sorted({p for name in packages for p in _sources(name)}):
        for name in _imported(path):
            top = name.partition(".")[0]
            other = top.startswith("coview_") and top not in packages
            demand(
                not other, f"{path.name} imports {name}: name its component in the recipe instead"
            )


def resolves(subject: Subject) -> str:
    """The recipe, by itself and with every preset, uses only components that exist."""
    names = list(subject.recipe.presets)
    for preset in ("none", *names):
        changes = attrs.evolve(subject.changes, preset=preset)
        configure(subject.recipe, None, changes, "check")
    return f"presets: {', '.join(names) or 'none'}"


def reads_back(subject: Subject) -> None:
    """The recipe written as TOML reads back as the same recipe, so a run can be repeated."""
    for resolved in (subject.whole, subject.resolved):
        text = to_toml(resolved.recipe)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.toml"
            path.write_text(text, encoding="utf-8")
            again = configure(read_recipe(path), None, Changes(preset="none"), "check")
        before, after = tomllib.loads(text), tomllib.loads(to_toml(again.recipe))
        wrong = [key for key in before if before[key] != after.get(key)]
        demand(not wrong, f"read back from TOML, {', '.join(wrong)} differ")


def documents_its_settings(subject: Subject) -> str:
    """Every setting has a help text, which `coview show` prints; it is documented nowhere else."""
    count = sum(documented(f"{p.table} {p.name!r}", p.factory) for p in _parts(subject.whole))
    return f"{count} settings"


def refuses_wrong_settings(subject: Subject) -> None:
    """A value of a wrong type is refused before anything is built, and its setting is named."""
    for part in _parts(subject.whole):
        refusing(part.table, part.factory)


def documented(label: str, factory: Any) -> int:
    """Demand that a component and its settings are documented; return the number of settings."""
    demand(bool(factory.__doc__), f"{label} has no docstring")
    fields = fields_of(factory.Settings)
    for field in fields:
        written = bool(field.metadata.get("help"))
        demand(written, f"{label}: {field.name} has no help text: use setting(default, help)")
    return len(fields)


def refusing(table: str, factory: Any) -> None:
    """Demand that a component's settings refuse values of a wrong type."""
    for field in fields_of(factory.Settings):
        # No setting is a table of tables.
        _, problems = structure(factory.Settings, {field.name: {"a": {"b": None}}}, table)
        demand(
            any(f"{table}.{field.name}" in problem for problem in problems),
            f"{table}.{field.name} accepts a value of any type: annotate it (int, float, str, "
            "bool, or tuples of them)",
        )


def _parts(resolved: Resolved) -> Iterator[Part]:
    for role in COMPONENTS:
        yield from (part for part in resolved.parts[role] if part.shared_with is None)


def _modules(subject: Subject) -> Iterator[str]:
    """Yield the modules of the method's own package that the recipe needs."""
    if not isinstance(subject.method, str) or subject.method.endswith(".toml"):
        raise NotTried("the recipe is not registered by a package")
    entry = find("methods", subject.method)
    yield entry.value.partition(":")[0]
    for part in _parts(subject.whole):
        if part.package == entry.package:
            yield part.factory.__module__


def _sources(package: str) -> list[Path]:
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return []
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _quiet() -> dict[str, Any]:
    import os

    # The child must find what this process finds, even if this process changed its path.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    variables = {**os.environ, "PYTHONPATH": path}
    return {"capture_output": True, "text": True, "check": False, "env": variables}
