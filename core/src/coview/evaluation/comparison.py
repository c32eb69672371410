"""Whose numbers are better: evaluations of runs, side by side where they may be compared.

Runs differ in a few settings, which are the columns; what all have is said once. Runs that
differ by their seed alone are one line. Only accuracies by one protocol on the same test images
stand under each other, best first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs

from coview.evaluation.chance import margin
from coview.evaluation.results import Row, facts_of, recipe_of
from coview.recipes.recipe import AFTERWARDS, TEXTS

Settings = dict[str, Any]

NAMES = {
    "knn": "kNN",
    "linear": "Linear probe",
    "finetune": "Fine-tuning",
    "retrieval": "Retrieval",
}
"""Evaluations in words."""
MEASURES = {
    "top1": "top-1",
    "top5": "top-5",
    "recall_at_1": "recall@1",
    "mean_average_precision": "mean average precision",
}
"""Accuracies that are compared, by their keys in a result; the first that a result has decides."""
PROTOCOL = (
    *("evaluation", "protocol", "k", "temperature", "features", "labels", "start", "source"),
    "match",
    *("epochs", "train_images", "test_images", "queries", "gallery", "gallery_data"),
)
"""Keys of a result that must agree for two accuracies to be comparable."""
TOLD = {"k": "k = {}", "temperature": "vote temperature {}", "epochs": "{} epochs", "source": "{}"}
"""Those of them that a title has beside the protocol's name."""
OF_THE_RUN = ("preset", "seed", "precision", "init")
"""The settings beside the recipe that change what is learned."""
ALWAYS = (
    *("method", "trained on", *OF_THE_RUN, "backbone", "data.size"),
    *("epochs", "batch_size", "optimizer.lr"),
)
"""Settings that are told first, even if they come with a method, a preset or the data."""


def settings_of(run: Path) -> Settings:
    """Return what a run was trained with, by name: ``loss.temperature``, ``epochs``, ``seed``."""
    facts, recipe = facts_of(run), recipe_of(run)
    given = {**recipe.pop("run", {}), **facts.get("settings", {}), "seed": facts["seed"]}
    apart = {*TEXTS, *AFTERWARDS, "presets"}
    found = dict(_flat("", {key: value for key, value in recipe.items() if key not in apart}))
    found |= {name: given[name] for name in OF_THE_RUN if name in given}
    data = facts["data"]
    return {
        "method": facts["method"],
        "trained on": data["name"],
        "training images": data.get("train_images"),
        "contents": data.get("fingerprint"),
        **found,
    }


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings of nested tables by name; a component's name is its table's."""
    items: Iterable[tuple[str, Any]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        items = ((str(number) if number else "", item) for number, item in enumerate(value))
    else:
        yield prefix, value
        return
    for key, item in items:
        yield from _flat(".".join(filter(None, (prefix, "" if key == "use" else key))), item)


@attrs.frozen
class Line:
    """Runs that differ by their seed alone, and what was measured of them.

    Attributes:
        settings: those that differ between lines.
        runs: their directories.
        seeds: of each run.
        shares: of each run, what decides.
        means: over the runs, by measure.
    """

    settings: Settings
    runs: tuple[str, ...]
    seeds: tuple[Any, ...]
    shares: tuple[float, ...]
    means: dict[str, float]


@attrs.frozen
class Group:
    """Lines whose accuracies may be compared, best first.

    Attributes:
        title: what was measured on what.
        images: number of test images; None if it is not known.
        measures: the keys of what is compared.
    """

    title: str
    images: int | None
    measures: tuple[str, ...]
    lines: tuple[Line, ...]


@attrs.frozen
class Comparison:
    """Evaluations of runs.

    Attributes:
        groups: those with most runs first.
        shared: settings that all runs have.
        differing: names of the settings that differ.
        without: runs that have no evaluation.
        outdated: runs that were trained further after some of their evaluations, which are
            left out: by run, the epochs after which these were made.
    """

    groups: tuple[Group, ...]
    shared: Settings
    differing: tuple[str, ...]
    without: tuple[str, ...]
    outdated: Mapping[str, tuple[float, ...]] = attrs.field(factory=dict)


def compare(runs: Sequence[Path], rows: Sequence[Row], each: bool = False) -> Comparison:
    """Compare runs by their evaluations.

    Args:
        runs: directories.
        rows: all their evaluations (:func:`coview.evaluation.results.rows`).
        each: a line for each run, also for those that differ by their seed alone.
    """
    settings = _settings(runs, rows)
    differing = [name for name in _names(settings) if _differ(name, settings)]
    shared = {
        name: next(iter(settings.values()))[name]
        for name in _names(settings)
        if not len({_hashable(found.get(name)) for found in settings.values()}) > 1
    }
    outdated: dict[str, tuple[float, ...]] = {}
    for row in filter(_outdated, rows):
        before = outdated.get(row["run"], ())
        outdated[row["run"]] = tuple(dict.fromkeys((*before, row["trained_epochs"])))
    rows = [row for row in rows if not _outdated(row)]
    grouped: dict[Any, list[Row]] = {}
    for row in rows:
        if measures := [name for name in MEASURES if row.get(name) is not None]:
            grouped.setdefault((comparable(row), measures[0]), []).append(row)
    found = [_group(its, settings, differing, each) for its in grouped.values()]
    found.sort(key=lambda group: -sum(len(line.runs) for line in group.lines))
    kept = {row["run"] for row in rows}
    return Comparison(
        groups=tuple(_told_apart(found)),
        shared=shared,
        differing=tuple(differing),
        without=tuple(str(run) for run in runs if str(run) not in kept),
        outdated=outdated,
    )


def _outdated(row: Row) -> bool:
    """Whether a run was trained further after it was measured: the weights are no more."""
    now, then = row.get("run_epochs"), row.get("trained_epochs")
    return now is not None and then is not None and bool(then < now)


def as_rows(runs: Sequence[Path], rows: Sequence[Row]) -> list[Row]:
    """Return evaluations for JSON, with the settings that differ and what may be compared.

    Rows of one number ``comparable`` may be compared.
    """
    settings = _settings(runs, rows)
    differing = [name for name in _names(settings) if _differ(name, settings)]
    numbers: dict[Any, int] = {}
    return [
        {
            **row,
            "settings": {name: settings[row["run"]].get(name) for name in differing},
            "comparable": numbers.setdefault(comparable(row), len(numbers)),
        }
        for row in rows
    ]


def comparable(row: Row) -> tuple[Any, ...]:
    """Return what two evaluations must have in common to be compared."""
    data = row.get("data_fingerprint") or row.get("data")
    return (data, *(_hashable(row.get(name)) for name in PROTOCOL))


def _settings(runs: Sequence[Path], rows: Sequence[Row]) -> dict[str, Settings]:
    """Return each run's settings: the epochs that were trained, and data told apart."""
    settings = {str(run): settings_of(run) for run in runs}
    trained = {row["run"]: row.get("run_epochs", row["trained_epochs"]) for row in rows}
    contents: dict[str, list[Any]] = {}
    for run, its in settings.items():
        planned, done = its.get("epochs"), trained.get(run)
        if done is not None and planned is not None and done < planned:
            its["epochs"] = f"{done:g} of {planned}"
        fingerprint, known = its.pop("contents"), contents.setdefault(its["trained on"], [])
        if fingerprint not in known:
            known.append(fingerprint)
        if known.index(fingerprint):
            its["trained on"] += f" (changed: {str(fingerprint)[:6]})"
    return settings


def _names(settings: Mapping[str, Settings]) -> list[str]:
    names = dict.fromkeys(name for its in settings.values() for name in its)
    return [*(name for name in ALWAYS if name in names), *(n for n in names if n not in ALWAYS)]


def _differ(name: str, settings: Mapping[str, Settings]) -> bool:
    """Whether a setting differs, and by more than what other methods, presets or data bring."""
    values = [_hashable(its.get(name)) for its in settings.values()]
    if name in ALWAYS:
        return len(set(values)) > 1
    origins = [(i["method"], i.get("preset"), i["trained on"]) for i in settings.values()]
    return len(set(zip(origins, values, strict=True))) > len(set(origins))


def _hashable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _group(
    rows: Sequence[Row], settings: Mapping[str, Settings], differing: Sequence[str], each: bool
) -> Group:
    first = rows[0]
    measures = [name for name in MEASURES if first.get(name) is not None]
    if first.get("classes", 6) <= 5 and "top5" in measures:
        measures.remove("top5")  # among five classes or fewer, the truth is always there
    lines: dict[Any, list[str]] = {}
    for run in dict.fromkeys(row["run"] for row in rows):
        own = (_hashable(settings[run].get(name)) for name in differing if name != "seed")
        lines.setdefault(run if each else tuple(own), []).append(run)
    # The last one of each seed of the evaluation itself: the same was measured again.
    last = {(row["run"], row.get("seed")): row for row in rows}
    made = [_line(runs, last, settings, differing, measures) for runs in lines.values()]
    images = first.get("test_images") or first.get("queries")
    return Group(
        title=_title(first),
        images=images,
        measures=tuple(measures),
        lines=tuple(sorted(made, key=lambda line: -line.means[measures[0]])),
    )


def _line(
    runs: Sequence[str],
    last: Mapping[Any, Row],
    settings: Mapping[str, Settings],
    differing: Sequence[str],
    measures: Sequence[str],
) -> Line:
    def of(run: str, name: str) -> float:
        return fmean(row[name] for (whose, _), row in last.items() if whose == run)

    return Line(
        settings={name: settings[runs[0]].get(name) for name in differing if name != "seed"},
        runs=tuple(runs),
        seeds=tuple(settings[run].get("seed") for run in runs),
        shares=tuple(of(run, measures[0]) for run in runs),
        means={name: fmean(of(run, name) for run in runs) for name in measures},
    )


def _title(row: Row) -> str:
    told = [form.format(row[key]) for key, form in TOLD.items() if row.get(key) is not None]
    protocol = ", ".join(filter(None, (row.get("protocol"), *told)))
    images = row.get("test_images") or row.get("queries")
    on = f", {images} test images" if images else ""
    name = NAMES.get(row["evaluation"], row["evaluation"])
    return f"{name} on {row.get('data')}{on}" + (f" ({protocol})" if protocol else "")


def _told_apart(groups: Sequence[Group]) -> Iterator[Group]:
    """Number titles that are the same: the images behind them are not."""
    seen: dict[str, int] = {}
    for group in groups:
        number = seen[group.title] = seen.get(group.title, 0) + 1
        more = f", other images ({number})" if number > 1 else ""
        yield attrs.evolve(group, title=f"{group.title}{more}")


def worth(group: Group) -> str:
    """Return how much one test image is worth, and which lines may differ by chance."""
    name = group.measures[0]
    # A mean of average precisions is no share of images: chance has no such interval.
    if not group.images or name == "mean_average_precision":
        return ""
    said = f"One of {group.images} test images is {100 / group.images:.2g} points"
    best, *others = (line.means[name] for line in group.lines)
    if not others:
        return f"{said}."
    near = [share for share in others if best - share <= _chance(best, share, group.images)]
    # The widest of them, so that one number holds for all that are too close.
    chance = max(_chance(best, share, group.images) for share in near or others[:1])
    told = (
        "The first is better than all others by more than that."
        if not near
        else f"The first {len(near) + 1} are too close to tell apart."
    )
    # That interval is of the images alone.
    single = all(len(line.runs) == 1 for line in group.lines)
    seeds = " Each has one seed, and another may change this." if single else ""
    return f"{said}; differences below {100 * chance:.1f} points may be chance. {told}{seeds}"


def _chance(first: float, second: float, images: int) -> float:
    """Return the difference that may be chance: one image at least."""
    return max(margin(first, second, images), 1 / images)
