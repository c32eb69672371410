"""Checking a whole package: everything that it provides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from coview.errors import PluginError, RequestError
from coview.hookspecs import ROLE_HOOKS, ROLES
from coview.method.relay import refuse_misspelt
from coview.recipes.resolve import Part
from coview.registry import KINDS, Entry, entries, kind_of_role
from coview.testing.checks import FAILED, OK, SKIPPED, Result, said, try_all
from coview.testing.errors import demand
from coview.testing.kit import PROMISES_OF_DATA, Promise
from coview.testing.kit.recipe import documented, refusing
from coview.testing.source import SourceSubject
from coview.testing.subject import Subject

ROLE_OF_KIND = {kind_of_role(role): role for role in ROLES}


def brought_by(package: str) -> list[Entry]:
    """Return everything that a distribution registers, ordered by kind."""
    return [entry for kind in KINDS for entry in entries(kind) if entry.package == package]


def packages() -> list[str]:
    """Return the names of all distributions that register anything, except coview itself."""
    found = {entry.package for kind in KINDS for entry in entries(kind)}
    return sorted(found - {"coview"})


def try_package(
    brought: Sequence[Entry],
    tried: Sequence[Promise],
    subject_of: Callable[[str], Subject] = Subject,
) -> Iterator[Result]:
    """Check everything that a package registers: its methods, then each other thing by itself."""
    used: set[object] = set()
    for entry in brought:
        if entry.kind == "methods":
            subject = subject_of(f"{entry.package}:{entry.name}")
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
    if entry.kind == "datasets":
        yield from _try_source(entry)
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
            f"no method of this package uses it; to check it: coview check METHOD --use "
            f"{role}={entry.name}"
        )
        yield Result(name, "trains", SKIPPED, sentence)


def _try_source(entry: Entry) -> Iterator[Result]:
    """Check a data set, if it is there without a path."""
    subject = SourceSubject(f"{entry.package}:{entry.name}")
    try:
        _ = subject.source
    except RequestError as error:
        name, how = f"{entry.kind}:{entry.name}", f"coview check {entry.name}:PATH"
        yield Result(name, "opens", SKIPPED, f"to check it: {how} ({error.problems[0]})")
        return
    yield from try_all(subject, PROMISES_OF_DATA)


def _has_settings(role: str, name: str, factory: type) -> None:
    settings = getattr(factory, "Settings", None)
    whole = settings is not None and attrs.has(settings)
    demand(whole, f"{role} {name!r} contains no attrs class called Settings")
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
    """Return the components of a method, both as written and as checked."""
    try:
        resolved = (subject.whole, subject.resolved)
    except Exception:  # the method's own promises report it
        return set()
    parts: list[Part] = [p for r in resolved for role in ROLES for p in r.parts[role]]
    return {part.factory for part in parts}
