"""A whole package under test: everything that it brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from coview.errors import PluginError
from coview.hookspecs import ROLE_HOOKS, ROLES
from coview.method.relay import refuse_misspelt
from coview.recipes.resolve import Part
from coview.registry import KINDS, Entry, entries, kind_of_role
from coview.testing.checks import FAILED, OK, SKIPPED, Result, said, try_all
from coview.testing.errors import demand
from coview.testing.kit import Promise
from coview.testing.kit.recipe import documented, refusing
from coview.testing.subject import Subject

ROLE_OF_KIND = {kind_of_role(role): role for role in ROLES}


def brought_by(package: str) -> list[Entry]:
    """Return everything that a distribution brings, in the kinds' order."""
    return [entry for kind in KINDS for entry in entries(kind) if entry.package == package]


def packages() -> list[str]:
    """Return the names of the distributions that bring anything, coview's own not among them."""
    found = {entry.package for kind in KINDS for entry in entries(kind)}
    return sorted(found - {"coview"})


def try_package(brought: Sequence[Entry], tried: Sequence[Promise]) -> Iterator[Result]:
    """Try everything that a package brings: each thing by itself, then its methods."""
    used: set[object] = set()
    for entry in brought:
        if entry.kind == "methods":
            subject = Subject(f"{entry.package}:{entry.name}")
            yield from try_all(subject, tried)
            used |= _used(subject)
    for entry in brought:
        if entry.kind != "methods":
            yield from _try_entry(entry, used)


def _try_entry(entry: Entry, used: set[object]) -> Iterator[Result]:
    name = f"{entry.kind}:{entry.name}"
    try:
        factory = entry.load()
    except PluginError as error:
        yield Result(name, "loads", FAILED, str(error))
        return
    yield Result(name, "loads", OK)
    if entry.kind not in ROLE_OF_KIND:
        return
    role = ROLE_OF_KIND[entry.kind]
    for promise, check in _OF_COMPONENTS.items():
        try:
            check(role, entry.name, factory)
        except Exception as error:
            yield Result(name, promise, FAILED, f"package {entry.package}: {said(error)}")
            return
        yield Result(name, promise, OK)
    if factory not in used:
        sentence = (
            f"no method of this package uses it: coview check METHOD --use {role}={entry.name}"
        )
        yield Result(name, "trains", SKIPPED, sentence)


def _has_settings(role: str, name: str, factory: type) -> None:
    settings = getattr(factory, "Settings", None)
    whole = settings is not None and attrs.has(settings)
    demand(whole, f"{role} {name!r} has no attrs class called Settings inside it")
    documented(f"{role} {name!r}", factory)
    refusing(role, factory)


def _has_its_hook(role: str, name: str, factory: type) -> None:
    hook = ROLE_HOOKS[role]
    marked = hasattr(getattr(factory, hook, None), "coview_impl")
    demand(marked, f"{role} {name!r} fills {role!r}, but has no @hookimpl {hook}")
    refuse_misspelt(object.__new__(factory), f"{role} {name!r}")


_OF_COMPONENTS: dict[str, Callable[[str, str, type], None]] = {
    "has-settings": _has_settings,
    "has-its-hook": _has_its_hook,
}


def _used(subject: Subject) -> set[object]:
    """Return the components of a method as it is written and as it is tried."""
    try:
        resolved = (subject.whole, subject.resolved)
    except Exception:  # its own promises say so
        return set()
    parts: list[Part] = [p for r in resolved for role in ROLES for p in r.parts[role]]
    return {part.factory for part in parts}
