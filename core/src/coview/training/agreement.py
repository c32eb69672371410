"""Several processes of one run must have been given the same; else it is said before a step.

Processes that differ would train on, and their average would be a run that nobody asked for.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from coview.data.base import ImageData
from coview.distributed import active, everyones
from coview.errors import RequestError
from coview.recipes.recipe import by_path, to_toml
from coview.recipes.resolve import CORE, Resolved
from coview.training.run_settings import RunSettings

LIBRARIES = ("torch", "torchvision", "kornia", "timm", "pluggy")
OWN = ("data", "device", "init", "workers", "observe", "download", "preset")
"""Settings that may differ: paths and devices are a machine's own, data have a fingerprint."""


def refuse_unequal(resolved: Resolved, settings: RunSettings, data: ImageData) -> None:
    """Refuse to train with processes that were given different things.

    Raises:
        RequestError: the message lists what differs, for each process.
    """
    if not active():
        return
    problems = unequal(everyones(facts_of(resolved, settings, data)))
    if problems:
        raise RequestError(*problems)


def facts_of(resolved: Resolved, settings: RunSettings, data: ImageData) -> dict[str, str]:
    """Return what must be the same everywhere, by name, as text."""
    parts = [part for parts in resolved.parts.values() for part in parts]
    packages = {CORE, *LIBRARIES, *(part.package for part in parts)}
    return {
        **{path: str(value) for path, value in by_path(tomllib.loads(to_toml(resolved.recipe)))},
        **{name: str(value) for name, value in settings.table().items() if name not in OWN},
        "data": data.fingerprint,
        **{f"version of {name}": _version(name) for name in sorted(packages)},
        # A method without a published probe, say, names no component for it.
        "code": _digest({part.factory.__module__ for part in parts if part.factory} | {CORE}),
    }


def unequal(facts: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a sentence for each name whose value differs between processes."""
    first = facts[0]
    sentences = []
    for name in dict.fromkeys(name for those in facts for name in those):
        other = next((n for n, f in enumerate(facts) if f.get(name) != first.get(name)), None)
        if other is not None:
            sentences.append(
                f"{name} must be the same for all processes of a run, but is "
                f"{first.get(name, 'missing')} in process 0 and "
                f"{facts[other].get(name, 'missing')} in process {other}."
            )
    return sentences


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"  # a Python object's, which belongs to no package


def _digest(modules: set[str]) -> str:
    """Return a digest of all Python files of the packages that these modules are in."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted({module.partition(".")[0] for module in modules}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:
            continue  # of a notebook, or typed
        path = Path(file)
        files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
        for source in files:
            digest.update(str(source.relative_to(path.parent)).encode() + source.read_bytes())
    return digest.hexdigest()
