"""A study: a paper's claim as an experiment, with the rule for its verdict written down first.

An entry point in the group ``coview.studies`` (by custom ``PACKAGE/WHAT``, such as
``simclr/head``) names a :class:`Study`. It is plain data, so that studies are
listed without importing torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from runpy import run_path
from typing import Any

import attrs

from coview.errors import RequestError, unknown
from coview.recipes.recipe import Recipe
from coview.registry import find
from coview.studies.verdict import Expectation, parted


@attrs.frozen(kw_only=True)
class Variant:
    """One way to train: arguments of :func:`coview.train` that differ from the study's own.

    None, or nothing in ``use`` and ``set``: as the study has it.

    Attributes:
        method: a method's name, or a recipe.
        data: the data set.
        preset, backbone, epochs, batch_size, accumulate, max_steps: as for :func:`coview.train`.
        use: components by role.
        set: settings by name.
        by: a peer whose own loop of the method trains in place of coview's (an entry of the
            group ``coview.peers``, see :mod:`coview.studies.peers`).
    """

    method: str | Recipe | None = None
    data: str | None = None
    preset: str | None = None
    backbone: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    max_steps: int | None = None
    use: Mapping[str, str | Sequence[str]] = attrs.field(factory=dict)
    set: Mapping[str, Any] = attrs.field(factory=dict)
    by: str | None = None

    def over(self, below: Variant) -> Variant:
        """Return this variant laid over another: what it does not say, the other says."""
        mine, theirs = self.given(), below.given()
        for table in ("use", "set"):
            mine[table] = {**theirs.get(table, {}), **mine.get(table, {})}
        return Variant(**{**theirs, **mine})

    def given(self) -> dict[str, Any]:
        """Return what this variant says, by the names of its attributes."""
        values = attrs.asdict(self, recurse=False)
        return {name: value for name, value in values.items() if value not in (None, {})}

    def words(self) -> str:
        """Return what it says as options of the command line, for tables."""
        said = [f"{name}={_plain(value)}" for name, value in self.given().items() if name != "set"]
        return ", ".join(said + [f"{key}={_plain(value)}" for key, value in self.set.items()])


def _plain(value: Any) -> str:
    if isinstance(value, Recipe):
        return value.name or value.summary
    if isinstance(value, Mapping):
        return " ".join(f"{role}:{name}" for role, name in value.items())
    return str(value)


@attrs.frozen
class Quantity:
    """Something that is measured on every finished run.

    Attributes:
        source: a metric that the run logs (its last value), or ``MODULE:FUNCTION``; the
            function is called with the finished :class:`coview.training.run.Run` and
            returns a number.
        title: what it is, for tables.
        percent: whether it is a share, shown in per cent.
    """

    source: str
    title: str
    percent: bool = True

    def read(self, run: Any) -> float:
        """Return its value on a finished run.

        Raises:
            RequestError: the run logged no such metric.
        """
        module, _, function = self.source.rpartition(":")
        if module:
            return float(getattr(import_module(module), function)(run))
        value = run.value(self.source)
        if value is None:
            raise RequestError(f"The run logged no {self.source!r}, which the study measures.")
        return float(value)

    def said(self, value: float) -> str:
        """Return a value as tables show it."""
        return f"{100 * value:.1f}" if self.percent else f"{value:.3f}"


KNN = Quantity("knn_top1", "kNN top-1, %")
UNTRAINED = Quantity("untrained_knn_top1", "untrained, %")
RAW_PIXELS = Quantity("raw_pixels_knn_top1", "raw pixels, %")


def _frozen(variants: Mapping[str, Variant]) -> dict[str, Variant]:
    return dict(variants)


@attrs.frozen(kw_only=True)
class Study:
    """A claim, the runs that test it, and the rule for the verdict.

    Attributes:
        claim: one sentence: what the paper says.
        source: the paper, and the section, figure or table.
        common: what all runs share.
        variants: the runs, by name.
        expect: what holds if the claim does; all of it must, for the verdict "supported".
        measure: what is measured, by the short name that ``expect`` uses. The first is what a
            variant's name alone means.
        notes: what a reader of the table should know: how this differs from the paper.
        grid: for a table of two dimensions, the names of rows and columns; the variants are
            called ``ROW + COLUMN``.
        quick: what is different in the short form (``--quick``), whose verdict means little.
    """

    claim: str
    source: str
    common: Variant
    variants: Mapping[str, Variant] = attrs.field(converter=_frozen)
    expect: tuple[Expectation, ...]
    measure: Mapping[str, Quantity] = attrs.field(factory=lambda: {"knn": KNN})
    notes: str = ""
    grid: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    quick: Variant = Variant(epochs=2)

    def __attrs_post_init__(self) -> None:
        """Refuse a rule about what is not measured."""
        problems = [
            problem for one in self.expect for term in one.terms for problem in self._wrong(term)
        ]
        cells = [f"{row} + {column}" for row, column in product(*self.grid or ((), ()))]
        problems += [
            unknown("variant", cell, self.variants) for cell in cells if cell not in self.variants
        ]
        if problems:
            raise RequestError(*dict.fromkeys(problems))

    def _wrong(self, term: str) -> list[str]:
        variant, quantity = parted(term)
        problems = []
        if variant not in self.variants:
            problems.append(unknown("variant", variant, self.variants))
        if quantity and quantity not in self.measure:
            problems.append(unknown("quantity", quantity, self.measure))
        return problems

    @property
    def first(self) -> str:
        """The quantity that a variant's name alone means."""
        return next(iter(self.measure))

    def whole(self, variant: str, *layers: Variant) -> Variant:
        """Return all that a variant says, with changes laid over it in this order."""
        whole = self.variants[variant].over(self.common)
        for layer in layers:
            whole = layer.over(whole)
        return whole


def find_study(name: str) -> Study:
    """Return an installed study, or one of a file: ``FILE.py:NAME``.

    Raises:
        RequestError: there is none; the message suggests the nearest name.
        PluginError: its package is broken.
    """
    path, _, variable = name.rpartition(":")
    if path.endswith(".py"):
        found = _in_file(Path(path), variable)
    else:
        found = find("studies", name).load()
    if not isinstance(found, Study):
        raise RequestError(f"{name} is not a study but {type(found).__name__}.")
    return found


def _in_file(path: Path, variable: str) -> Any:
    if not path.is_file():
        raise RequestError(f"There is no file {path}.")
    values = run_path(str(path))
    studies = {key for key, value in values.items() if isinstance(value, Study)}
    if variable not in values:
        raise RequestError(unknown(f"study in {path}", variable, studies))
    return values[variable]
