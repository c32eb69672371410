"""The registry: what is installed, read from package metadata alone.

Listing imports no plugin; only what is asked for by name is loaded, and an
error then names the package at fault.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import attrs

from coview.errors import PluginError, RequestError, nearest, unknown
from coview.hookspecs import ROLES

_SINGULAR = {
    "methods": "method",
    "views": "views component",
    "encoders": "encoder",
    "targets": "target",
    "negatives": "negatives component",
    "losses": "loss",
    "wrappers": "wrapper",
    "datasets": "data set",
    "backbones": "backbone",
    "observers": "observer",
    "commands": "command",
    "studies": "study",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "protocols": "evaluation protocol",
    "view_backends": "view backend",
    "reports": "report",
    "peers": "peer",
    "catalogues": "catalogue",
    "weights": "place of weights",
}
KINDS = tuple(_SINGULAR)
"""The kinds of things that plugins provide; their entry-point groups are ``coview.KIND``."""


def named(kind: str, count: int) -> str:
    """Return a kind's name for a number of things: ``1 loss``, ``2 losses``, ``2 data sets``."""
    plural = {"datasets": "data sets", "view_backends": "view backends"}.get(kind, kind)
    return _SINGULAR[kind] if count == 1 else plural


_ROLE_KINDS = dict(zip(ROLES, ("views", "encoders", "targets", "negatives", "losses"), strict=True))
_ROLE_KINDS["wrap"] = "wrappers"
_ALIASES = {
    **{word: kind for kind, word in _SINGULAR.items()},
    **{word: kind for kind in KINDS for word in (kind, kind.replace("_", "-"))},
    **_ROLE_KINDS,
    "view": "views",
    "negative": "negatives",
    "dataset": "datasets",
    "protocol": "protocols",
    "view-backend": "view_backends",
}


class Point(Protocol):
    """Loads an entry: an entry point, or something found in a catalogue."""

    def load(self) -> Any:
        """Return the object, importing it if need be."""
        ...


@attrs.frozen
class _Found:
    """Something found in a catalogue."""

    thing: Any

    def load(self) -> Any:
        return self.thing


@attrs.frozen(order=True)
class Entry:
    """One installed thing: its kind and name, and where it comes from."""

    kind: str
    name: str
    package: str
    version: str
    value: str = attrs.field(order=False)
    _point: Point = attrs.field(eq=False, repr=False)

    @property
    def from_catalogue(self) -> bool:
        """Whether it was found in a catalogue, not registered by itself."""
        return isinstance(self._point, _Found)

    def load(self) -> Any:
        """Import it.

        Raises:
            PluginError: the import failed; the message names the package.
        """
        try:
            return self._point.load()
        except Exception as error:
            what = f"{_SINGULAR[self.kind]} {self.name!r} ({self.value})"
            raise PluginError(
                f"Package {self.package} {self.version} is broken: its {what} cannot be "
                f"loaded: {type(error).__name__}: {error}"
            ) from error


def kind_of(text: str) -> str:
    """Return the kind that a word means; it may be singular, plural or a role's name.

    Raises:
        RequestError: no kind is called that; the message suggests the nearest.
    """
    if text not in _ALIASES:
        raise RequestError(unknown("kind", text, KINDS))
    return _ALIASES[text]


def role_of(text: str) -> str:
    """Return the role that a word means, singular or plural."""
    kind = _ALIASES.get(text)
    for role, role_kind in _ROLE_KINDS.items():
        if kind == role_kind:
            return role
    raise RequestError(unknown("role", text, ROLES))


def kind_of_role(role: str) -> str:
    """Return the kind of component that fills ``role``."""
    return _ROLE_KINDS[role]


def entries(kind: str) -> list[Entry]:
    """Return all installed entries of a kind, sorted by name, then package."""
    points = _installed(tuple((f, _changed(f)) for f in sys.path)).select(group=f"coview.{kind}")
    return sorted({Entry(kind, p.name, *_package(p.dist), p.value, p) for p in points})


def _changed(folder: str) -> int:
    """Return when packages last came or went; 0 of a folder that this user may not enter."""
    with suppress(OSError):
        return Path(folder).stat().st_mtime_ns
    return 0


# Reading every package's metadata takes 20 ms, and a command asks some twenty times.
@lru_cache(maxsize=1)
def _installed(path: tuple[tuple[str, int], ...]) -> Any:
    """Return all entry points; ``path`` is read by importlib as ``sys.path``."""
    return metadata.entry_points()


@lru_cache(maxsize=1024)  # each look at a name parses the package's metadata
def _package(dist: metadata.Distribution | None) -> tuple[str, str]:
    return (dist.name, dist.version) if dist else ("unknown", "0")


def find(kind: str, name: str) -> Entry:
    """Return the one entry that ``NAME`` or ``PACKAGE:NAME`` means; ``SimCLR`` means ``simclr``.

    Raises:
        RequestError: there is none (the message suggests the nearest name), or
            several packages claim the name (the message lists them).
    """
    package, _, short = name.rpartition(":")
    there = entries(kind)
    theirs = [e for e in there if package in ("", e.package)]
    found = [e for e in theirs if e.name == short] or [
        e for e in theirs if _spelled(e.name) == _spelled(short)
    ]
    if len(found) > 1:
        raise RequestError(_clash(found))
    return found[0] if found else _in_catalogues(kind, name, {e.name for e in there})


def _spelled(name: str) -> str:
    """Return a name as names are compared: ``MoCo_v2`` is ``moco-v2``."""
    return name.lower().replace("_", "-").replace(" ", "-")


def _in_catalogues(kind: str, name: str, there: set[str]) -> Entry:
    """Search the catalogues of a kind: collections of things not registered one by one.

    An entry point in the group ``coview.catalogues`` has the kind's name and points to an
    object with ``title`` (empty: not mentioned where nothing is found), ``find(name)`` (None
    if it has no such thing) and ``names()``.
    """
    titles, known = [], set(there)
    for entry in entries("catalogues"):
        if entry.name == kind:
            catalogue = entry.load()
            thing = catalogue.find(name)
            if thing is not None:
                value = f"{entry.value}, {name}"
                return Entry(kind, name, entry.package, entry.version, value, _Found(thing))
            titles += [catalogue.title] if catalogue.title else []
            known |= set(catalogue.names())
    if not titles:
        raise RequestError(unknown(_SINGULAR[kind], name, there))
    raise RequestError(
        f"There is no {_SINGULAR[kind]} called {name!r}, neither registered nor in "
        f"{' or '.join(titles)}.{nearest(name, known)}"
    )


def clashes() -> list[str]:
    """Return one sentence for each name that several packages claim."""
    sentences = []
    for kind in KINDS:
        by_name: dict[str, list[Entry]] = {}
        for entry in entries(kind):
            by_name.setdefault(entry.name, []).append(entry)
        sentences += [_clash(owners) for owners in by_name.values() if len(owners) > 1]
    return sentences


def _clash(owners: Sequence[Entry]) -> str:
    first, packages = owners[0], [entry.package for entry in owners]
    return (
        f"The packages {' and '.join(packages)} both claim the {_SINGULAR[first.kind]} "
        f"{first.name!r}. Write {packages[0]}:{first.name} to choose one, or uninstall the other."
    )
