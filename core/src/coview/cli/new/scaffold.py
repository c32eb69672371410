"""A new plugin package, written from templates."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path
from string import Template

import attrs

from coview.cli.new.based import Based, based_on, versions_like
from coview.cli.new.kinds import KINDS, Kind, roles
from coview.errors import CoviewError, RequestError, unknown
from coview.registry import entries

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_plugin(name: str, folder: Path, kind: str = "loss", base: str = "") -> list[Path]:
    """Write a package ``coview-NAME`` with one component and its tests.

    A kind that is part of a method has a recipe too: SimCLR with that role replaced. A method
    has a component of its own in each role, or none and another's recipe with one change.

    Args:
        name: the name of the component, of the method, and, after ``coview-``, of the package.
        folder: where to write it; must not exist, or be empty.
        kind: one of :data:`coview.cli.new.kinds.KINDS`.
        base: of a method, the installed one that it is based on; empty: none.

    Returns:
        The files written.

    Raises:
        RequestError: the name is invalid or taken, there is no such kind or base, or the folder
            is not empty.
        CoviewError: the folder cannot be written.
    """
    if kind not in KINDS:
        raise RequestError(unknown("kind", kind, KINDS))
    if base and kind != "method":
        raise RequestError(f"--base needs --kind method, not {kind}.")
    _check(name, folder, KINDS[kind], base)
    written = []
    try:
        for place, text in plugin_files(name, kind, base).items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise CoviewError(f"{folder} cannot be written: {error.strerror}.") from error
    return written


def plugin_files(name: str, kind: str, base: str = "") -> dict[str, str]:
    """Return what a package consists of: each file's text by its place in the folder."""
    chosen, module = KINDS[kind], f"coview_{name.replace('-', '_')}"
    other = based_on(base) if base else None
    words = {
        "name": name,
        "module": module,
        "what": f"{base} with one change" if base else chosen.what,
    }
    words |= _words(name, module, kind, other)
    folder = resources.files("coview.cli.new") / "template"
    texts = {
        place: (folder / f"{template}.txt").read_text(encoding="utf-8")
        for place, template in _templates(module, kind, other).items()
    }
    made = {place: Template(text).substitute(words) for place, text in texts.items()}
    return {**made, f"src/{module}/py.typed": ""}


def _templates(module: str, kind: str, other: Based | None) -> dict[str, str]:
    """Return the template of each file."""
    chosen = KINDS[kind]
    first = (
        "method/based.py" if other else f"shared/{'recipe' if chosen.has_recipe else 'plain'}.py"
    )
    templates = {
        "pyproject.toml": "shared/pyproject.toml",
        "README.md": "shared/README.md",
        f"src/{module}/__init__.py": first,
    }
    for part in _components(kind, other):
        templates[f"src/{module}/{part}.py"] = f"{part}/{part}.py"
        templates[f"tests/test_{part}.py"] = f"{part}/test_{part}.py"
    if kind == "method":
        templates["tests/test_method.py"] = f"method/test_{'based' if other else 'method'}.py"
    if chosen.has_recipe:
        templates["tests/test_promises.py"] = "shared/test_promises.py"
    return templates


def _components(kind: str, other: Based | None) -> tuple[str, ...]:
    """Return the kinds of components in a package, each in a module called as its kind."""
    if kind != "method":
        return (kind,)
    return () if other else KINDS[kind].parts


def _words(name: str, module: str, kind: str, other: Based | None) -> dict[str, str]:
    chosen, series = KINDS[kind], versions_like(metadata.version("coview"))
    points = [("methods", "$name", f"{module}:recipe")] if chosen.has_recipe else []
    for part in _components(kind, other):
        one = KINDS[part]
        points.append((one.group, one.entry, f"{module}.{part}:{one.thing}"))
    needed = [f'"{package}{series}"' for package in ("coview", *chosen.needs)]
    needed += [f'"{other.package}{other.versions}"'] if other else []
    testing = () if other else chosen.tests_need
    return {
        "Title": chosen.what[0].upper() + chosen.what[1:],
        "about": _about(chosen, name, other),
        "usage": "\n".join(f"    {line}" for line in _named(chosen.usage, name)),
        "dependencies": ", ".join(needed),
        "for_tests": "".join(f', "{package}{series}"' for package in testing),
        "points": "\n".join(
            f'[project.entry-points."coview.{group}"]\n{_key(point, name)} = "{value}"\n'
            for group, point, value in points
        ),
        "roles": roles(chosen, name),
        **(attrs.asdict(other) if other else {}),
    }


def _about(kind: Kind, name: str, other: Based | None) -> str:
    if other:
        whose = f"{other.base} ({other.package})"
        return f"The recipe `{name}` is {whose} with one change:\n{other.effect}."
    if kind.parts:
        return (
            f"Every part of the recipe `{name}` is its own, each in a file of its name:\n"
            f"{', '.join(kind.parts[:-1])} and {kind.parts[-1]}. A part that you do not need\n"
            "gives way to another package's: name that in the recipe, make its package a\n"
            "dependency, and delete the file, its test and its entry point."
        )
    if kind.role:
        others = ", ".join(sorted(kind.needs))
        return (
            f"The recipe `{name}` is SimCLR with it; the other parts come from other\n"
            f"packages ({others})."
        )
    return f"Its name in coview is `{_named((kind.entry,), name)[0]}`."


def _named(texts: tuple[str, ...], name: str) -> list[str]:
    return [Template(text).substitute(name=name) for text in texts]


def _key(entry: str, name: str) -> str:
    (text,) = _named((entry,), name)
    return text if _NAME.fullmatch(text) else f'"{text}"'


def _check(name: str, folder: Path, kind: Kind, base: str) -> None:
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(
            f"{name!r} cannot be a method's name: use lower-case letters, digits and single "
            "hyphens, and begin with a letter, as in my-method."
        )
    problems += [
        f"{entry.package} already has {group}:{name}. Choose another name."
        for group in _groups(kind, base)
        for entry in entries(group)
        if entry.name == _named((kind.entry,), name)[0]
    ]
    if kind.group == "commands" and name in _own_commands():
        problems.append(f"coview already has a command {name!r}. Choose another name.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        problems.append(f"{folder} already exists; nothing was written. Choose another --out.")
    if problems:
        raise RequestError(*problems)


def _groups(kind: Kind, base: str) -> list[str]:
    """Return the groups in which a package registers something of its name."""
    parts = () if base else kind.parts
    groups = [*(["methods"] if kind.has_recipe else []), kind.group]
    return list(dict.fromkeys([*groups, *(KINDS[part].group for part in parts)]))


def _own_commands() -> dict[str, str]:
    from coview.cli.main import COMMANDS

    return COMMANDS
