"""Who imports what: the light commands, every module alone, and nobody the command line."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    path.name: path
    for path in (ROOT / "core/src/coview", *sorted(ROOT.glob("plugins/[!_]*/src/coview_*")))
    if (path / "__init__.py").exists()
}
PLUGINS = sorted(set(PACKAGES) - {"coview"})
HEAVY = ("torch", "torchvision", "kornia", "timm", "sklearn", "torchmetrics")

REPORT = """
import sys
from coview.cli import main
try:
    main(sys.argv[1:], prog_name="coview", standalone_mode=False)
except SystemExit as ended:
    assert not ended.code, ended.code
print("HEAVY:", *sorted({name.partition(".")[0] for name in sys.modules} & set(%r)))
"""


@pytest.mark.parametrize(
    "command", ["--help", "--version", "list", "list losses --json", "lineage", "train --help"]
)
def test_light_commands_import_no_heavy_library(python: Callable[..., Any], command: str) -> None:
    done = python("-c", REPORT % (HEAVY,), *command.split())
    *said, last = done.stdout.splitlines()
    assert said and last == "HEAVY:", last


def test_the_report_sees_a_heavy_library(python: Callable[..., Any]) -> None:
    done = python("-c", REPORT % (HEAVY,), "show", "simclr")
    assert {"torch", "timm"} <= set(done.stdout.splitlines()[-1].split())


def test_a_recipe_needs_no_torch(python: Callable[..., Any]) -> None:
    code = (
        "import sys, coview;"
        "from coview import Recipe, Use, Plan, hookimpl, setting, cosine, linear;"
        "names = [entry.name for entry in coview.registry.entries('methods')];"
        "print([coview.recipe(name).summary for name in names]);"
        f"assert not set(sys.modules) & set({HEAVY!r})"
    )
    assert len(ast.literal_eval(python("-c", "import coview.registry;" + code).stdout)) >= 5


NEEDED = {"coview_report.lightly_loops": "lightly"}
"""Modules that are imported only where a library is asked for that few install."""
EACH = """
import importlib, sys
# Libraries are loaded once; coview and its plugins are imported anew for each module.
for library in %r:
    importlib.import_module(library)
for name in sys.argv[1:]:
    for known in [k for k in sys.modules if k.partition(".")[0].startswith("coview")]:
        del sys.modules[known]
    importlib.import_module(name)
    print(name)
"""


def modules(package: Path) -> dict[str, Path]:
    """Return the modules of a package by name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_every_module_imports_alone(python: Callable[..., Any]) -> None:
    names = [
        name
        for package in PACKAGES.values()
        for name in modules(package)
        if not name.endswith("__main__") and _installed(NEEDED.get(name, "coview"))
    ]
    assert len(names) > 60
    assert python("-c", EACH % (HEAVY,), *names).stdout.split() == names


def _installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def imports(path: Path) -> set[str]:
    """Return the names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_imports_no_other_plugin(plugin: str) -> None:
    for name, path in modules(PACKAGES[plugin]).items():
        others = {
            m for m in imports(path) if m.startswith("coview_") and m.partition(".")[0] != plugin
        }
        assert not others, f"{name} imports {others}"


def test_the_core_imports_no_plugin() -> None:
    for name, path in modules(PACKAGES["coview"]).items():
        assert not {m for m in imports(path) if m.startswith("coview_")}, name


def test_nothing_imports_the_command_line() -> None:
    for package in PACKAGES.values():
        for name, path in modules(package).items():
            if not name.startswith(("coview.cli", "coview.__main__")):
                wrong = {m for m in imports(path) if m.startswith("coview.cli")}
                assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_recipes_module_imports_what_is_light(plugin: str) -> None:
    assert not {m.partition(".")[0] for m in imports(PACKAGES[plugin] / "__init__.py")} & set(HEAVY)
