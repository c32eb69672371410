"""A new plugin package, written from a template."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path
from string import Template

from coview.errors import CoviewError, RequestError
from coview.registry import entries

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FILES = (
    "pyproject.toml",
    "README.md",
    "src/__init__.py",
    "src/loss.py",
    "tests/test_loss.py",
    "tests/test_promises.py",
)


def write_plugin(name: str, folder: Path) -> list[Path]:
    """Write a package ``coview-NAME`` with a recipe, a loss and tests for both.

    Args:
        name: the name of the method, of the loss and, after ``coview-``, of the package.
        folder: where to write it; must not exist, or be empty.

    Returns:
        The files written.

    Raises:
        RequestError: the name is invalid or taken, or the folder is not empty.
        CoviewError: the folder cannot be written.
    """
    _check(name, folder)
    module = f"coview_{name.replace('-', '_')}"
    words = {"name": name, "module": module, "versions": _versions()}
    written = []
    try:
        for file in _FILES:
            path = folder / (file if not file.startswith("src/") else f"src/{module}/{file[4:]}")
            template = resources.files("coview.cli.new") / "template" / f"{file}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = Template(template.read_text(encoding="utf-8")).substitute(words)
            path.write_text(text, encoding="utf-8")
            written.append(path)
        typed = folder / "src" / module / "py.typed"
        typed.touch()
    except OSError as error:
        raise CoviewError(f"{folder} cannot be written: {error.strerror}.") from error
    return [*written, typed]


def _check(name: str, folder: Path) -> None:
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(
            f"{name!r} cannot be a method's name: use lower-case letters, digits and single "
            "hyphens, and begin with a letter, as in my-method."
        )
    for kind in ("methods", "losses"):
        problems += [
            f"{entry.package} already has {kind}:{name}. Choose another name."
            for entry in entries(kind)
            if entry.name == name
        ]
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        problems.append(f"{folder} already exists; nothing was written. Choose another --out.")
    if problems:
        raise RequestError(*problems)


def _versions() -> str:
    """Return the versions of coview that a new package should require: ``>=0.1,<0.2``."""
    major, minor = (int(part) for part in metadata.version("coview").split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}"
