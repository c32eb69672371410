"""A new plugin package, written from templates."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path
from string import Template

from coview.cli.new.kinds import KINDS, Kind, roles
from coview.errors import CoviewError, RequestError, unknown
from coview.registry import entries

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_plugin(name: str, folder: Path, kind: str = "loss") -> list[Path]:
    """Write a package ``coview-NAME`` with one component and its tests.

    A kind that is part of a method has a recipe too: SimCLR with that role replaced.

    Args:
        name: the name of the component, of the method, and, after ``coview-``, of the package.
        folder: where to write it; must not exist, or be empty.
        kind: one of :data:`coview.cli.new.kinds.KINDS`.

    Returns:
        The files written.

    Raises:
        RequestError: the name is invalid or taken, there is no such kind, or the folder is
            not empty.
        CoviewError: the folder cannot be written.
    """
    if kind not in KINDS:
        raise RequestError(unknown("kind", kind, KINDS))
    _check(name, folder, KINDS[kind])
    written = []
    try:
        for place, text in plugin_files(name, kind).items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise CoviewError(f"{folder} cannot be written: {error.strerror}.") from error
    return written


def plugin_files(name: str, kind: str) -> dict[str, str]:
    """Return what a package consists of: each file's text by its place in the folder."""
    chosen, module = KINDS[kind], f"coview_{name.replace('-', '_')}"
    words = {"name": name, "module": module, "what": chosen.what, **_words(name, module, kind)}
    templates = {
        "pyproject.toml": "shared/pyproject.toml",
        "README.md": "shared/README.md",
        f"src/{module}/__init__.py": f"shared/{'recipe' if chosen.role else 'plain'}.py",
        f"src/{module}/{kind}.py": f"{kind}/{kind}.py",
        f"tests/test_{kind}.py": f"{kind}/test_{kind}.py",
    }
    if chosen.role:
        templates["tests/test_promises.py"] = "shared/test_promises.py"
    base = resources.files("coview.cli.new") / "template"
    texts = {
        place: (base / f"{template}.txt").read_text(encoding="utf-8")
        for place, template in templates.items()
    }
    made = {place: Template(text).substitute(words) for place, text in texts.items()}
    return {**made, f"src/{module}/py.typed": ""}


def _words(name: str, module: str, kind: str) -> dict[str, str]:
    chosen, versions = KINDS[kind], _versions()
    points = {chosen.group: (chosen.entry, f"{module}.{kind}:{chosen.thing}")}
    if chosen.role:
        points = {"methods": ("$name", f"{module}:recipe"), **points}
    needed = ", ".join(f'"{package}{versions}"' for package in ("coview", *chosen.needs))
    others = sorted({"coview-simclr", "coview-cpc"} & set(chosen.needs))
    return {
        "Title": chosen.what[0].upper() + chosen.what[1:],
        "about": _about(chosen, name, others),
        "usage": "\n".join(f"    {line}" for line in _named(chosen.usage, name)),
        "dependencies": needed,
        "points": "\n".join(
            f'[project.entry-points."coview.{group}"]\n{_key(point, name)} = "{value}"\n'
            for group, (point, value) in points.items()
        ),
        "roles": roles(chosen, name),
    }


def _about(kind: Kind, name: str, others: list[str]) -> str:
    if kind.role:
        return (
            f"The recipe `{name}` is SimCLR with it; the other parts come from other\n"
            f"packages ({', '.join(others)})."
        )
    return f"Its name in coview is `{_named((kind.entry,), name)[0]}`."


def _named(texts: tuple[str, ...], name: str) -> list[str]:
    return [Template(text).substitute(name=name) for text in texts]


def _key(entry: str, name: str) -> str:
    (text,) = _named((entry,), name)
    return text if _NAME.fullmatch(text) else f'"{text}"'


def _check(name: str, folder: Path, kind: Kind) -> None:
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(
            f"{name!r} cannot be a method's name: use lower-case letters, digits and single "
            "hyphens, and begin with a letter, as in my-method."
        )
    problems += [
        f"{entry.package} already has {group}:{name}. Choose another name."
        for group in dict.fromkeys((*(("methods",) if kind.role else ()), kind.group))
        for entry in entries(group)
        if entry.name == _named((kind.entry,), name)[0]
    ]
    if kind.group == "commands" and name in _own_commands():
        problems.append(f"coview already has a command {name!r}. Choose another name.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        problems.append(f"{folder} already exists; nothing was written. Choose another --out.")
    if problems:
        raise RequestError(*problems)


def _own_commands() -> dict[str, str]:
    from coview.cli.main import COMMANDS

    return COMMANDS


def _versions() -> str:
    """Return the versions of coview that a new package should require: ``>=0.1,<0.2``."""
    major, minor = (int(part) for part in metadata.version("coview").split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}"
