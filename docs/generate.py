"""Write the parts of the documentation that are taken from the code.

    python docs/generate.py

`tests/test_docs.py` fails when what is written differs from what this would write.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import click
from click.testing import CliRunner

import coview
from coview import api, components
from coview.cli import main
from coview.cli.evaluate import command as evaluate
from coview.cli.main import COMMANDS
from coview.components import Component
from coview.evaluation import ways
from coview.hookspecs import HOOK_NAMES, LifeHooks, StepHooks
from coview.registry import entries
from coview.registry import find as entry
from coview.settings import fields_of

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
    parts.append(
        "## What the declarations are made of\n\nFrom `coview.components`. What `step` has is in "
        "[Python](python.md#coviewstep).\n"
    )
    for record in (components.Guard, components.ParameterGroup):
        code = signature(record.__name__, record)
        text = f"```python\n{code}\n```\n\n```text\n{inspect.getdoc(record)}\n```\n"
        parts.append(f"### {record.__name__}\n\n{text}")
    return parts


def cli() -> str:
    """Return docs/cli.md: the help of coview's own commands, and of those of this repository."""
    parts = ["# Command line\n\nGenerated from `coview COMMAND --help`.\n"]
    nested = (["evaluate", name] for name in sorted(evaluate.commands))
    paths: list[list[str]] = [[], *([name] for name in sorted(COMMANDS)), *nested]
    parts += [_help(path) for path in paths]
    plugins = {f"coview-{folder.name}" for folder in (DOCS.parent / "plugins").iterdir()}
    brought = [one for one in entries("commands") if one.package in plugins]
    parts.append(
        "## Commands of plugins\n\nEach is there once its package is installed, as all are after "
        "`pip install -r requirements.txt`.\n"
    )
    for one in sorted(brought, key=lambda one: one.name):
        package = f"{one.package} brings it (`plugins/{one.package.removeprefix('coview-')}`)."
        within = getattr(one.load(), "commands", {})
        parts.append(_help([one.name], package))
        parts += [_help([one.name, name]) for name in sorted(within)]
    return "\n".join(parts)


def _help(path: list[str], about: str = "") -> str:
    """Return a section with a command's help."""
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="coview")
    text = "\n".join(line.rstrip() for line in result.output.splitlines())
    if not path:
        text = _own_commands(text)
    said = f"{about}\n\n" if about else ""
    return f"## {' '.join(['coview', *path])}\n\n{said}```text\n{text}\n```\n"


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


def python() -> str:
    """Return docs/python.md: examples, and every public name with signature and docstring."""
    examples = (DOCS / "python_examples.py").read_text(encoding="utf-8")
    parts = [
        "# Python\n\nThe same runs, recipes and components as on the command line. The examples "
        "are run by the tests; the reference is generated from the docstrings of `coview`.\n"
    ]
    for section in examples.split("# ## ")[1:]:
        title, _, code = section.partition("\n")
        parts.append(f"## {title}\n\n```python\n{code.strip()}\n```\n")
    parts.append("## Reference\n")
    listed = [name for names in PUBLIC.values() for name in names]
    if sorted(listed) != coview.__all__:
        raise ValueError(f"PUBLIC lacks or repeats {set(listed) ^ set(coview.__all__)}")
    for title, names in PUBLIC.items():
        parts += [f"### {title}\n", *(documented(name) for name in names)]
    return "\n".join(parts)


PUBLIC = {
    "Runs and weights": (
        *("train", "Run", "evaluate", "compare", "embed", "neighbours"),
        *("views", "export", "load_backbone", "load_encoder", "Result", "Embedder"),
    ),
    "Recipes and their parts": (
        *("recipe", "Recipe", "Use", "component", "build", "Plan", "Layout"),
        *("setting", "Schedule", "cosine", "linear", "hookimpl"),
    ),
    "What a step hands on": ("Batch", "Views", "Encoded", "Targets", "Negatives", "Step"),
    "Errors": ("CoviewError", "RequestError", "PluginError"),
}
"""The names of ``coview.__all__`` as the page orders them."""


def documented(name: str) -> str:
    """Return a public name's signature and docstring, and those of its methods and properties."""
    # coview.views is a function, and a package once some part of it was imported.
    thing = getattr(api, name, None) or getattr(coview, name)
    if name == "hookimpl":
        text = "Decorator of a component's method that is a hook; see [hooks](hooks.md)."
        return f"#### `coview.hookimpl`\n\n{text}\n"
    returned = thing in (coview.Run, coview.Result)  # nobody makes one
    code = f"class coview.{name}" if returned else signature(f"coview.{name}", thing)
    texts = [inspect.getdoc(thing) or ""]
    members = vars(thing).items() if isinstance(thing, type) else ()
    for member, value in members:
        about = inspect.getdoc(value) or ""
        if member[0] == "_":
            continue
        if inspect.isfunction(value):
            texts.append(f"{signature(f'{name}.{member}', value, 1)}\n\n{about}")
        elif isinstance(value, property):
            given = inspect.signature(value.fget).return_annotation  # type: ignore[arg-type]
            texts.append(f"{name}.{member}: {given}\n\n{about}")
    body = re.sub(r":\w+:`([^`]+)`", r"`\1`", "\n\n".join(texts)).replace("``", "`")
    after = f"\n{settings_of_evaluations()}" if name == "evaluate" else ""
    return f"#### `coview.{name}`\n\n```python\n{code}\n```\n\n```text\n{body}\n```\n{after}"


def signature(name: str, thing: object, skip: int = 0) -> str:
    """Return how something is called, on one line or with a line for each argument."""
    if thing in (coview.CoviewError, coview.PluginError):
        return f"{name}(message)"
    shape = inspect.signature(thing)  # type: ignore[arg-type]
    arguments, starred = [], False
    for parameter in list(shape.parameters.values())[skip:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            arguments.append("*")
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        text = stars.get(parameter.kind, "") + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            shown = repr(parameter.default)
            text += f" = {'...' if shown == 'NOTHING' or ' at 0x' in shown else shown}"
        arguments.append(text)
    given = shape.return_annotation
    returns = "" if given in (shape.empty, None, "None") else f" -> {given}"
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= 100:
        return line
    listed = "".join(f"    {argument},\n" for argument in arguments)
    return f"{name}(\n{listed}){returns}"


def settings_of_evaluations() -> str:
    """Return a table of the settings of each of coview's own evaluations."""
    parts = []
    for name in ways.OWN:
        kind = entry("protocols", name).load().evaluate_settings
        rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
        for field in fields_of(kind):
            rows.append(f"| `{field.name}` | `{field.default!r}` | {field.metadata['help']} |")
        parts.append(f"Settings of `{name}`:\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def readme() -> str:
    """Return the README with the example plugin and the table of all methods in their places."""
    text = README.read_text(encoding="utf-8")
    for name, part in (("plugin", example()), ("methods", script("recorded").methods())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}{part}{end}{after}"
    return text


def data() -> str:
    """Return docs/data.md with the tables of what the tests make and check."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    try:
        tables = importlib.import_module("data_cases").tables()
    finally:
        sys.path.remove(str(DOCS.parent / "tests"))
    begin, end = "<!-- cases: begin -->\n", "<!-- cases: end -->"
    before, rest = (DOCS / "data.md").read_text(encoding="utf-8").split(begin)
    return f"{before}{begin}{tables}{end}{rest.split(end)[1]}"


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
        DOCS / "python.md": python(),
        DOCS / "data.md": data(),
        DOCS / "benchmarks.md": script("figures").text(),  # the raw figures as tables
        DOCS / "studies.md": script("recorded").text(),
        README: readme(),
        **script("authors_pages").pages(),
        **script("methods_pages").pages(),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path.relative_to(DOCS.parent)}")
