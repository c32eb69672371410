"""What a sweep tries: its method, its options of ``coview train``, and the settings that vary."""

from __future__ import annotations

import itertools
import math
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from coview.errors import RequestError, unknown
from coview.files import write_text
from coview.settings import literal

SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("median", "none")
PROBE = "online_probe_top1"
"""The metric of ``--observe probe``."""
RANGE = re.compile(r"(?P<low>[^.:]+(?:\.\d+)?(?:e-?\d+)?)\.\.(?P<high>[^:]+?)(?P<log>:log)?")


def _mapping(value: Any) -> dict[str, Any]:
    return {str(name): each for name, each in dict(value).items()}


@attrs.frozen(kw_only=True)
class Spec:
    """A sweep.

    Attributes:
        method: a method, or a recipe file.
        train: further words of ``coview train``, the same for every trial.
        grid: the values of settings that have a list of them.
        range: ``LOW..HIGH`` or ``LOW..HIGH:log`` of settings that are numbers.
        trials: number of trials; 0: as many as the grid has points.
        sampler: one of :data:`SAMPLERS`.
        pruner: one of :data:`PRUNERS`.
        metric: what is compared, as ``metrics.jsonl`` calls it.
        minimize: whether less of it is better.
        seed: of the sampler.
    """

    method: str
    train: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    grid: dict[str, Any] = attrs.field(factory=dict, converter=_mapping)
    range: dict[str, str] = attrs.field(factory=dict, converter=_mapping)
    trials: int = 0
    sampler: str = ""
    pruner: str = "median"
    metric: str = PROBE
    minimize: bool = False
    seed: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str) -> Spec:
        """Check plain values, and choose what is left open.

        Raises:
            RequestError: with all problems.
        """
        known = [field.name for field in attrs.fields(cls)]
        problems = [
            f"{where}: {unknown('key', name, known)}" for name in values if name not in known
        ]
        if "method" not in values:
            problems.append(f"{where}: a sweep needs a method.")
        if problems:
            raise RequestError(*problems)
        spec = cls(**{name: value for name, value in values.items() if value is not None})
        problems = [*spec._problems()]
        if problems:
            raise RequestError(*problems)
        sampler = spec.sampler or ("tpe" if spec.range else "grid")
        trials = spec.trials or (spec.points if sampler == "grid" else 20)
        trials = min(trials, spec.points) if sampler == "grid" else trials
        return attrs.evolve(spec, sampler=sampler, trials=trials)

    def _problems(self) -> list[str]:
        found = []
        if not self.grid and not self.range:
            found.append("Nothing varies: add --grid NAME=A,B,... or --range NAME=LOW..HIGH.")
        for name, values in self.grid.items():
            if not isinstance(values, list) or not values:
                found.append(f"--grid {name} needs a list of values, not {values!r}.")
        for name, text in self.range.items():
            try:
                bounds(text)
            except RequestError as error:
                found.append(f"--range {name}: {error}")
        if both := sorted(set(self.grid) & set(self.range)):
            found.append(f"Vary {', '.join(both)} by --grid or by --range, not by both.")
        if self.sampler and self.sampler not in SAMPLERS:
            found.append(unknown("sampler", self.sampler, SAMPLERS))
        if self.pruner not in PRUNERS:
            found.append(unknown("pruner", self.pruner, PRUNERS))
        if self.sampler == "grid" and self.range:
            found.append("A grid has no ranges: use --sampler random or tpe, or only --grid.")
        return found

    @property
    def points(self) -> int:
        """Number of points of the grid."""
        return math.prod(len(values) for values in self.grid.values())

    def words(self, params: Mapping[str, Any]) -> list[str]:
        """Return what follows ``coview train`` for a trial with these settings."""
        probe = ["--observe", "probe"] if self.metric == PROBE else []
        chosen = [("--set", f"{name}={_written(value)}") for name, value in params.items()]
        return [self.method, *self.train, *probe, *itertools.chain.from_iterable(chosen)]

    def command(self, params: Mapping[str, Any]) -> str:
        """Return the command that does such a trial again."""
        return shlex.join(["coview", "train", *self.words(params)])

    def save(self, file: Path) -> None:
        """Write the sweep such that :func:`read` reads it again."""
        write_text(file, tomli_w.dumps(attrs.asdict(self)))


def read(file: Path) -> dict[str, Any]:
    """Return the plain values in a TOML file.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"The sweep {file} cannot be read: {error}.") from error


def bounds(text: str) -> tuple[float | int, float | int, bool]:
    """Return the least and the most of ``LOW..HIGH[:log]``, and whether it is logarithmic.

    Raises:
        RequestError: it is no range.
    """
    found = RANGE.fullmatch(str(text))
    ends = [literal(found[name]) for name in ("low", "high")] if found else []
    numbers = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if found is None or len(numbers) < 2 or not numbers[0] < numbers[1]:
        raise RequestError(f"A range is LOW..HIGH or LOW..HIGH:log, as 0.05..1, not {text!r}.")
    if found["log"] and numbers[0] <= 0:
        raise RequestError(f"A logarithmic range begins above 0, not at {numbers[0]}.")
    return numbers[0], numbers[1], bool(found["log"])


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Split ``NAME=VALUE`` texts.

    Raises:
        RequestError: one has no ``=``.
    """
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise RequestError(*(f"{option} takes NAME=VALUES, not {text!r}." for text in wrong))
    return dict(text.split("=", 1) for text in texts)


def listed(text: str) -> list[Any]:
    """Read the values of ``--grid NAME=A,B``; commas within brackets do not separate."""
    pieces, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            pieces.append(text[start:place])
            start = place + 1
    return [literal(piece.strip()) for piece in (*pieces, text[start:])]


def _written(value: Any) -> str:
    """Return a value as ``--set`` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
