"""The settings of a run beside its recipe: one list, from the command line to the checkpoint.

The options of ``coview train``, the arguments of :func:`coview.train`, the table ``[run]`` of
``recipe.toml``, ``settings`` in ``run.json`` and the run's identity in a checkpoint all follow
the fields of :class:`RunSettings`; ``tests/test_run_settings.py`` fails where one is missing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from coview.errors import RequestError
from coview.recipes.recipe import Recipe
from coview.settings import Validator, between, ge, plain, read_toml, setting, structure

SEEDS = (-(2**63), 2**63 - 1)
"""Smallest and largest seed of a generator."""
LONGEST_TIMEOUT = 7 * 24 * 3600.0
"""Seconds; processes wait this long for one that evaluates (:mod:`coview.distributed`)."""


def asked(
    default: Any,
    help: str,
    *validators: Validator,
    computes: bool = False,
    repeats: bool = True,
    at_start: bool = False,
    **option: Any,
) -> Any:
    """Declare a run setting.

    Args:
        default, help, validators: as for :func:`coview.settings.setting`.
        computes: the value changes the numbers that are computed: a resumed run accepts
            another one only with ``--allow-change``.
        repeats: a resumed run, and one from ``recipe.toml``, keeps the value.
        at_start: only matters before the first step: refused beside ``--resume``.
        **option: for the command line: ``least``, and ``shown``, the default in words.
    """
    field = setting(default, help, *validators)
    facts = {"computes": computes, "repeats": repeats, "at_start": at_start, "option": option}
    field.metadata = {**field.metadata, **facts}
    return field


@attrs.frozen(kw_only=True)
class RunSettings:
    """All settings of a run beside its recipe."""

    data: str | None = asked(
        None,
        "SOURCE[:PATH]: digits, idx:DIR, cifar10, ..., or the path of a folder of images.",
        shown="digits",
    )
    preset: str | None = asked(
        None, "A preset of the recipe, or none.", at_start=True, shown="chosen by the images"
    )
    init: str | None = asked(None, "Start from these weights: a run or a file.", at_start=True)
    device: str = asked("auto", "auto, cpu, cuda or cuda:N.")
    precision: str = asked(
        "auto",
        "auto, fp32, tf32, bf16 or fp16; auto: bf16 on a GPU that has it, else fp32.",
        computes=True,
    )
    compile: str = asked(
        "auto",
        "Compile networks, views and losses with torch.compile, which takes a minute or two at "
        "the start. --no-compile: compile nothing. Without either, a run of 20,000 steps or more "
        "compiles its views, a shorter one nothing.",
        computes=True,
        shown=None,
    )
    threads: int = asked(
        0,
        "Threads that compute on a processor.",
        ge(0),
        computes=True,
        least=1,
        shown="one for each core",
    )
    workers: int = asked(0, "Processes that decode images.", ge(0), least=0)
    seed: int = asked(0, "Random seed.", between(*SEEDS), computes=True)
    max_steps: int | None = asked(
        None,
        "Stop after this many steps; none: no limit. The learning rate goes on as if the run "
        "were to do all of its epochs.",
        ge(0),
        least=1,
    )
    save_every: str = asked("10m", "Steps (500) or minutes (10m) between checkpoints.")
    evaluate_every: int = asked(0, "Epochs between kNN evaluations; 0: never.", ge(0), least=0)
    log_every: int = asked(
        50, "Steps between logged metrics; ends of epochs are logged too.", ge(1), least=1
    )
    evaluate: bool = asked(True, "Skip the kNN accuracy before and after training.")
    report: bool = asked(True, "Leave out the report that installed packages write of the run.")
    observe: tuple[str, ...] = asked((), "Add an observer, with settings if given. Repeatable.")
    timeout: float = asked(
        600.0,
        "End the run if a process hears nothing from the others for this many seconds.",
        between(1, LONGEST_TIMEOUT, "between 1 second and 7 days"),
        least=1,
    )
    download: bool = asked(False, "Download the data set if it is missing.", repeats=False)

    @classmethod
    def of(cls, *layers: Mapping[str, Any]) -> RunSettings:
        """Return settings from layers of plain values; later layers win.

        None means that a value was not given; the text ``"none"`` sets it to None.

        Raises:
            RequestError: with every problem found.
        """
        values = {
            key: value for layer in layers for key, value in layer.items() if value is not None
        }
        made, problems = structure(cls, values, "run")
        if problems:
            raise RequestError(*(problem.removeprefix("run.") for problem in problems))
        found: RunSettings = made
        return found

    def table(self) -> dict[str, Any]:
        """Return all settings as plain values for TOML and JSON."""
        return dict(plain(attrs.asdict(self, recurse=False)))

    def repeated(self) -> dict[str, Any]:
        """Return the settings that a resumed run keeps, as plain values."""
        table = self.table()
        return {name: table[name] for name in names(repeats=True)}

    def identity(self) -> dict[str, Any]:
        """Return the settings that identify a run; data are identified by their fingerprint."""
        return {name: value for name, value in self.repeated().items() if name != "data"}


def names(**facts: bool) -> list[str]:
    """Return the names of the settings with these properties, e.g. ``computes=True``."""
    return [
        field.name
        for field in attrs.fields(RunSettings)
        if all(field.metadata[fact] is value for fact, value in facts.items())
    ]


def run_table(method: str | Path | Recipe) -> dict[str, Any]:
    """Return the table ``[run]`` of a recipe file written by a run, else an empty one.

    Raises:
        RequestError: it is not a table, or has an unknown setting or a wrong value.
    """
    if isinstance(method, Recipe) or not str(method).endswith(".toml"):
        return {}
    try:
        table = read_toml(Path(method).read_text(encoding="utf-8")).get("run", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}  # reading the recipe itself gives the error
    if not isinstance(table, Mapping):
        raise RequestError(f"{method}: run must be a table, not {table!r}.")
    _, problems = structure(RunSettings, table, f"{method}: run")
    if problems:
        raise RequestError(*problems)
    return dict(table)
