"""The runs of a study: each variant with each seed, checked before the first one begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from coview.errors import RequestError
from coview.recipes.configure import Changes
from coview.recipes.recipe import to_toml
from coview.registry import find
from coview.studies.study import Quantity, Study, Variant

RESULT = "result.json"
"""What a finished run leaves beside its own files: what was measured."""


@attrs.frozen(kw_only=True)
class Asked:
    """How a study is run.

    Attributes:
        name: the study's name, or ``FILE.py:NAME``.
        seeds: a run of every variant for each.
        changes: what the user changes in all variants (the data, the epochs, the most steps).
        quick: whether the study's short form is run.
        device: a value of ``--device``.
        out: where runs and results go.
    """

    name: str
    seeds: tuple[int, ...]
    changes: Variant = Variant()
    quick: bool = False
    device: str = "auto"
    out: Path = Path("studies")


@attrs.frozen(kw_only=True)
class Job:
    """A run: a variant with a seed.

    Attributes:
        variant: its name in the study.
        seed: its seed.
        digest: of all that decides its numbers: jobs with the same digest are run once.
        folder: the run's directory.
    """

    variant: str
    seed: int
    digest: str
    folder: Path

    @property
    def result(self) -> dict[str, Any] | None:
        """What was measured; None as long as nothing is."""
        path = self.folder / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@attrs.frozen(kw_only=True)
class Order:
    """What a run's process is told.

    Attributes:
        arguments: of :func:`coview.train`.
        measure: what is measured on the finished run.
        seed, device: of the run.
        folder: the run's directory.
        by: the peer that trains in place of coview's own loop; None: none.
    """

    arguments: Mapping[str, Any]
    measure: Mapping[str, Quantity]
    seed: int
    device: str
    folder: Path
    by: str | None = None


def whole(study: Study, variant: str, asked: Asked) -> Variant:
    """Return all that is asked of a variant's run: arguments of :func:`coview.train`."""
    return study.whole(variant, *((study.quick,) if asked.quick else ()), asked.changes)


def jobs(study: Study, asked: Asked) -> list[Job]:
    """Return a study's runs, seed by seed, after checking every one.

    Raises:
        RequestError: with the problems of every variant, by its name.
    """
    texts, problems = {}, []
    for variant in study.variants:
        try:
            texts[variant] = _identity(whole(study, variant, asked), study, asked)
        except RequestError as error:
            problems += [f"Variant {variant!r}: {problem}" for problem in error.problems]
    if problems:
        raise RequestError(*problems)
    return [
        _job(variant, seed, text, asked) for seed in asked.seeds for variant, text in texts.items()
    ]


def _job(variant: str, seed: int, text: str, asked: Asked) -> Job:
    digest = hashlib.blake2b(f"{text}\nseed {seed}".encode(), digest_size=8).hexdigest()
    return Job(variant=variant, seed=seed, digest=digest, folder=asked.out / "runs" / digest)


def _identity(wanted: Variant, study: Study, asked: Asked) -> str:
    """Return all that decides a run's numbers but its seed, as text."""
    from coview.training.request import Request, prepare

    given = wanted.given()
    data, method = given.pop("data", None), given.pop("method", None)
    max_steps, by = given.pop("max_steps", None), given.pop("by", None)
    if method is None:
        raise RequestError("It names no method.")
    if data is None:
        raise RequestError("It names no data set: give one with --data.")
    settings = {"data": data, "device": asked.device}
    request = Request(method=method, settings=settings, changes=Changes(**given))
    prepared = prepare(request)
    quantities = [quantity.source for quantity in study.measure.values()]
    versions = {name: metadata.version(name) for name in ("coview", "torch")}
    facts = [data, str(prepared.device), max_steps, quantities, versions]
    if by is not None:
        facts.append([by, find("peers", by).load()().version()])
    return f"{to_toml(prepared.resolved.recipe)}\n{json.dumps(facts)}"


def unique(wanted: Sequence[Job]) -> list[Job]:
    """Return the jobs without those that are the same run under another variant's name."""
    found: dict[str, Job] = {}
    for job in wanted:
        found.setdefault(job.digest, job)
    return list(found.values())


def order(job: Job, study: Study, asked: Asked) -> Order:
    """Return what a run's process is told."""
    given = whole(study, job.variant, asked).given()
    return Order(
        by=given.pop("by", None),
        arguments=given,
        measure=study.measure,
        seed=job.seed,
        device=asked.device,
        folder=job.folder,
    )
