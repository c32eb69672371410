"""One line about each installed thing, read from its source without importing it."""

from __future__ import annotations

import ast

from coview.cli.source import part_of
from coview.registry import Entry


def description(entry: Entry) -> str:
    """Return a recipe's summary, a study's claim, or the first line of a docstring.

    It is the thing's own docstring, which stands below an assignment, or else its module's.

    Nothing is imported, so this works for broken packages too; ``""`` if the source
    cannot be found.
    """
    module, _, name = entry.value.partition(":")
    tree = part_of(module.strip(), name.strip())
    if tree is None:
        return ""
    # Objects made in a loop have no docstring, so the module's is used.
    return _line(tree, name.strip()) or _first(ast.get_docstring(tree) or "")


def _line(tree: ast.Module, name: str) -> str:
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return _first(ast.get_docstring(node) or "")
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return _summary(node) or _first(_text_below(tree, node))
    return ""


def _text_below(tree: ast.Module, node: ast.stmt) -> str:
    """Return the text that stands below an assignment and describes what was assigned."""
    after = tree.body[tree.body.index(node) + 1 :][:1]
    if after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant):
        return str(after[0].value.value)
    return ""


def _summary(node: ast.stmt) -> str:
    """Return the text given as ``summary=`` (or a study's ``claim=``) in an assignment."""
    for inside in ast.walk(node):
        if isinstance(inside, ast.keyword) and inside.arg in ("summary", "claim"):
            return str(inside.value.value) if isinstance(inside.value, ast.Constant) else ""
    return ""


def _first(docstring: str) -> str:
    return docstring.strip().partition("\n")[0].rstrip(".").replace("``", "")
