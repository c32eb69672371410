"""Write the parts of the documentation that are taken from the code.

    python docs/generate.py

`tests/test_docs.py` fails when what is written differs from what this would write.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

import click
from click.testing import CliRunner

from coview import components
from coview.cli import main
from coview.cli.evaluate import command as evaluate
from coview.cli.main import COMMANDS
from coview.components import Component
from coview.hookspecs import HOOK_NAMES, LifeHooks, StepHooks
from coview.registry import entries

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
EXAMPLE = DOCS / "example_plugin"


def hooks() -> str:
    """Return docs/hooks.md: every hook with its arguments and contract."""
    parts = ["# Hooks\n\nGenerated from `core/src/coview/hookspecs.py`.\n"]
    for title, group in (("A step", StepHooks), ("A run's life", LifeHooks)):
        parts.append(f"## {title}\n\n{inspect.getdoc(group)}\n")
        for name, member in vars(group).items():
            if name in HOOK_NAMES:
                arguments = ", ".join(list(inspect.signature(member).parameters)[1:])
                parts.append(f"### {name}({arguments})\n\n```text\n{inspect.getdoc(member)}\n```\n")
    return "\n".join([*parts, *declarations()])


def declarations() -> list[str]:
    """Return what the components of each role may declare beside their hooks."""
    parts = [
        "## What a component may declare\n\n"
        "Every attribute that the engine reads from a component, from "
        "`core/src/coview/components.py`. A role's component may declare its own and those of "
        "any component; another public attribute in its class is refused.\n"
    ]
    tree = ast.parse(Path(components.__file__).read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    titles = {"any role": Component, **components.ROLE_CLASSES}
    for title, role in titles.items():
        body = classes[role.__name__].body
        rows = ["| attribute | meaning |", "| --- | --- |"]
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
                name, text = ast.unparse(node.target), str(after.value.value)  # type: ignore[attr-defined]
            elif isinstance(node, ast.FunctionDef):
                name, text = f"{node.name}()", ast.get_docstring(node) or ""
            else:
                continue
            rows.append(f"| `{name}` | {' '.join(text.split())} |")
        if len(rows) > 2:
            parts.append(f"### {title}\n\n" + "\n".join(rows) + "\n")
    return parts


def cli() -> str:
    """Return docs/cli.md: the help of every command that is coview's own."""
    parts = ["# Command line\n\nGenerated from `coview COMMAND --help`.\n"]
    nested = (["evaluate", name] for name in evaluate.commands)
    paths: list[list[str]] = [[], *([name] for name in COMMANDS), *nested]
    for path in paths:
        result = CliRunner().invoke(main, [*path, "--help"], prog_name="coview")
        text = "\n".join(line.rstrip() for line in result.output.splitlines())
        if not path:
            text = _own_commands(text)
        parts.append(f"## {' '.join(['coview', *path])}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _own_commands(text: str) -> str:
    """Leave out the commands that plugins bring, which depend on what is installed."""
    brought = {entry.name for entry in entries("commands")}
    kept, leaving = [], False
    for line in text.splitlines():
        if line.startswith("  ") and line[2:3].strip():
            leaving = line.split()[0] in brought
        if not leaving:
            kept.append(line)
    return "\n".join(kept)


def readme() -> str:
    """Return the README with the example plugin and the table of all methods in their places."""
    text = README.read_text(encoding="utf-8")
    for name, part in (("plugin", example()), ("methods", script("recorded").methods())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}{part}{end}{after}"
    return text


def example() -> str:
    """Return the example plugin's files as Markdown."""
    files = [EXAMPLE / "pyproject.toml", *sorted(EXAMPLE.glob("src/*/*.py"))]
    blocks = []
    for path in files:
        language = {".toml": "toml", ".py": "python"}[path.suffix]
        name = path.relative_to(EXAMPLE).as_posix()
        blocks.append(f"`{name}`:\n\n```{language}\n{path.read_text(encoding='utf-8')}```\n\n")
    return "".join(blocks)


def script(name: str) -> ModuleType:
    """Return a module beside this file, which may be loaded from anywhere."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


def generated() -> dict[Path, str]:
    """Return every generated file with its text."""
    return {
        DOCS / "hooks.md": hooks(),
        DOCS / "cli.md": cli(),
        DOCS / "benchmarks.md": script("figures").text(),  # the raw figures as tables
        DOCS / "studies.md": script("recorded").text(),
        README: readme(),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path.relative_to(DOCS.parent)}")
