"""What installed code says of itself, read from its source without importing it."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from contextlib import suppress
from pathlib import Path


class NotKnownError(Exception):
    """The source does not tell: only an import would."""


@functools.cache
def source_of(module: str) -> ast.Module | None:
    """Return a module's syntax tree; None if its source cannot be found or read."""
    text = _text(module)
    try:
        return None if text is None else ast.parse(text)
    except SyntaxError:
        return None


def part_of(module: str, name: str) -> ast.Module | None:
    """Return what :func:`source_of` does, of the module's docstring and one name alone.

    To parse all of a hundred modules takes half a second; for a line about each it need not be.
    """
    text = _text(module)
    if text is None:
        return None
    head = re.split(r"^(?:from|import) ", text, maxsplit=1, flags=re.MULTILINE)[0]
    # A statement ends where the next one begins; a text below belongs to what stands above it.
    begins = rf"^(?:(?:class|def) {re.escape(name)}\b|{re.escape(name)}\b[^=\n]*=).*\n"
    own = re.search(begins + r"(?:(?![A-Za-z_@]).*\n)*", text + "\n", re.MULTILINE)
    if name and own:
        with suppress(SyntaxError):  # cut inside a text
            return ast.Module(ast.parse(head).body + ast.parse(own[0]).body, [])
    return source_of(module)


@functools.cache
def _text(module: str) -> str | None:
    file = _file(module)
    try:
        return None if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _file(module: str) -> Path | None:
    """Find a module's file through its top-level package, without importing anything."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if not below:
        return path
    for place in (path.parent.joinpath(*below) / "__init__.py", path.parent.joinpath(*below)):
        file = place if place.name == "__init__.py" else place.with_suffix(".py")
        if file.is_file():
            return file
    return None


def settings_of(value: str) -> tuple[str, ...]:
    """Return the names of a component's settings: the fields of its class ``Settings``.

    Args:
        value: what its entry point says, ``module:Class``.

    Raises:
        NotKnownError: the class, or one that it inherits from, is not written as a class statement.
    """
    module, _, name = value.partition(":")
    return tuple(_fields(*_nested(*_class(module.strip(), name.strip()), "Settings")))


def _class(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """Find a class in a module, or where that imports it from; return its module too."""
    tree = source_of(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _class(node.module, alias.name)
    raise NotKnownError(f"{module}:{name}")


def _nested(module: str, outer: ast.ClassDef, name: str) -> tuple[str, ast.ClassDef]:
    """Find a class inside another one, or inside those that it inherits from."""
    for node in outer.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
            return _named(module, node.value)
    for base in outer.bases:
        try:
            return _nested(*_named(module, base), name)
        except NotKnownError:
            continue  # torch's own, say
    raise NotKnownError(f"{module}:{outer.name}.{name}")


def _named(module: str, written: ast.expr) -> tuple[str, ast.ClassDef]:
    """Find the class that an expression names: ``Base``, or ``Base.Settings``."""
    if isinstance(written, ast.Name):
        return _class(module, written.id)
    if isinstance(written, ast.Attribute):
        return _nested(*_named(module, written.value), written.attr)
    raise NotKnownError(ast.unparse(written))


def _fields(module: str, settings: ast.ClassDef) -> dict[str, None]:
    """Return the fields of an attrs class in its order: those that it only inherits come first."""
    own = {
        node.target.id: None
        for node in settings.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not ast.unparse(node.annotation).startswith("ClassVar")
    }
    inherited: dict[str, None] = {}
    for base in settings.bases:
        inherited |= _fields(*_named(module, base))
    return {name: None for name in inherited if name not in own} | own
