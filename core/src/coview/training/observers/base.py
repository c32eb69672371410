"""Observers by name: they watch a run and fill no role in it.

An observer is a class with hook implementations. With an attrs class ``Settings``
inside, it is built as ``Cls(Cls.Settings(...))``, otherwise as ``Cls()``. With
``state_dict()`` and ``load_state_dict(state)``, its state is in the run's
checkpoints. With ``close()``, it is closed when training ends, however it ends. It
runs on every process; only the first process should write files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from coview.components import declared
from coview.errors import RequestError
from coview.registry import find
from coview.settings import literal, read_toml, structure

OF_THE_TERMINAL = "progress"
"""The observer that belongs to the user's terminal, not to the run."""

_WRITTEN = re.compile(r"(?P<name>[^=]*?)(?::(?P<settings>[^:=]+=.*))?")


class Observer:
    """Base class of observers (group ``coview.observers``), which may implement any hook.

    With an attrs class ``Settings`` it is built as ``Class(settings)``, else as ``Class()``.
    """

    def state_dict(self) -> Mapping[str, Any] | None:
        """Return the state to keep in the run's checkpoints; None: no state."""
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""

    def close(self) -> None:
        """Close files and terminals; called once, however the run ends."""


@attrs.frozen(eq=False)
class Watcher:
    """One observer of a run.

    Attributes:
        name: the name under which its state is saved.
        asked: the text that requested it, so that a resumed run can request it
            again; empty for an object.
        package: the distribution it comes from, for messages.
        observer: the object with hook implementations.
    """

    name: str
    asked: str
    package: str
    observer: Any

    @property
    def of_the_run(self) -> bool:
        """Whether a resumed run has it again: it has a name and is not the terminal's."""
        return bool(self.asked) and self.name != OF_THE_TERMINAL


def watchers(asked: Iterable[Any]) -> list[Watcher]:
    """Build observers.

    Args:
        asked: ``NAME`` or ``NAME:key=value,key=value``, or objects. If two have
            the same name, the last one counts.

    Raises:
        RequestError: the message lists all unknown names and wrong settings.
    """
    problems: list[str] = []
    made: dict[str, Watcher] = {}
    for item in asked:
        try:
            one = _named(item) if isinstance(item, str) else _ready(item)
        except RequestError as error:
            problems += error.problems
            continue
        made[one.name] = one
    if problems:
        raise RequestError(*problems)
    return list(made.values())


def _named(text: str) -> Watcher:
    name, values = parse(text)
    entry = find("observers", name)
    factory = entry.load()
    settings_class = getattr(factory, "Settings", None)
    if settings_class is None:
        if values:
            raise RequestError(f"observer {name!r} has no settings: write only {name!r}.")
        return Watcher(entry.name, text, entry.package, factory())
    owner = f"observer {entry.name!r} ({entry.package})"
    settings, problems = structure(settings_class, values, name, owner)
    if problems:
        raise RequestError(*problems)
    return Watcher(entry.name, text, entry.package, factory(settings))


def _ready(observer: Any) -> Watcher:
    if isinstance(observer, type):
        raise RequestError(
            f"observe takes names or objects, not classes: call {observer.__name__}(...) first."
        )
    return Watcher(type(observer).__name__, "", "", observer)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``NAME:key=value,key=value``, with values as in ``--set``.

    >>> parse("probe:lr=0.1,epochs=[1, 2]")
    ('probe', {'lr': 0.1, 'epochs': [1, 2]})
    """
    match = _WRITTEN.fullmatch(text)
    if match is None or not match["name"]:
        raise RequestError(f"--observe takes NAME or NAME:key=value,key=value, not {text!r}.")
    settings = match["settings"] or ""
    try:
        return match["name"], dict(read_toml(f"all = {{{settings}}}")["all"])
    except tomllib.TOMLDecodeError:
        pass  # here, text may be written without quotes
    pairs = [part.partition("=") for part in settings.split(",")]
    if any(not sign for _, sign, _ in pairs):
        raise RequestError(f"--observe takes NAME or NAME:key=value,key=value, not {text!r}.")
    return match["name"], {key.strip(): literal(value.strip()) for key, _, value in pairs}


def states(observers: Mapping[str, Watcher]) -> dict[str, Any]:
    """Return the states of all observers that have one, by name."""
    found = {
        name: declared(watcher.observer, Observer, "state_dict")()
        for name, watcher in observers.items()
    }
    return {name: state for name, state in found.items() if state is not None}


def restore(observers: Mapping[str, Watcher], kept: Mapping[str, Any]) -> None:
    """Restore the state of each observer; one that is new in this run starts afresh."""
    for name, watcher in observers.items():
        if name in kept:
            declared(watcher.observer, Observer, "load_state_dict")(kept[name])


def close(observers: Mapping[str, Watcher]) -> None:
    """Close all observers, which may hold a terminal or a file open."""
    for watcher in observers.values():
        declared(watcher.observer, Observer, "close")()
