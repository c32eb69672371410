"""How compared methods stand: means with intervals, and how far each is behind the best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import attrs

from coview.studies.jobs import Job
from coview.studies.verdict import Interval
from coview_report.comparing import Entrant
from coview_report.summary import duration

WIDEST = 18
"""Characters of a method's name in a table of 80."""


@attrs.frozen(kw_only=True)
class Place:
    """A method's results.

    Attributes:
        name: the method.
        shares: its kNN accuracies, in the order of the seeds.
        knn: their mean, and its 95 % interval.
        behind: the mean difference to the best method, seed by seed; None: it is the best.
        untrained: mean accuracy before training.
        seconds: mean time of training.
        entrant: what it was given.
    """

    name: str
    shares: tuple[float, ...]
    knn: Interval
    behind: Interval | None
    untrained: float
    seconds: float
    entrant: Entrant

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference to the best method excludes zero."""
        return self.behind is not None and self.behind.high < 0


@attrs.frozen(kw_only=True)
class Standing:
    """All methods, the best first.

    Attributes:
        places: the methods.
        seeds: those that every method has finished.
        raw_pixels: kNN accuracy of the pixels themselves; None: not measured.
    """

    places: tuple[Place, ...]
    seeds: tuple[int, ...]
    raw_pixels: float | None = None

    @property
    def best(self) -> Place:
        """The method with the highest mean."""
        return self.places[0]

    @property
    def verdict(self) -> str:
        """What the intervals allow to say, in a sentence."""
        first, *others = self.places
        if len(self.seeds) < 2:
            said = f"{first.name} is ahead with one seed, which says little: give --seeds 3."
        elif near := [place.name for place in others if not place.told_apart]:
            said = f"{first.name} is ahead, but {len(self.seeds)} seeds do not tell it from "
            said += f"{_all(near)}."
        else:
            said = f"{first.name} is better than the others, by more than the seeds scatter."
        if self.raw_pixels is not None and first.knn.mean <= self.raw_pixels:
            said += f" It is not better than raw pixels ({100 * self.raw_pixels:.1f} %)."
        return said


def standing(found: Sequence[Entrant], jobs: Sequence[Job], seeds: Sequence[int]) -> Standing:
    """Return how methods stand, by the seeds that all of them have finished.

    Args:
        found: the methods.
        jobs: their runs.
        seeds: those that were asked for; at least one is whole.
    """
    results = {(job.variant, job.seed): job.result for job in jobs}
    whole = [seed for seed in seeds if all(results[each.name, seed] for each in found)]
    values: dict[str, list[Mapping[str, float]]] = {
        each.name: [(results[each.name, seed] or {})["values"] for seed in whole] for each in found
    }
    shares = {name: [of["knn"] for of in each] for name, each in values.items()}
    order = sorted(found, key=lambda each: -fmean(shares[each.name]))
    best = shares[order[0].name]
    return Standing(
        places=tuple(
            Place(
                name=each.name,
                shares=tuple(shares[each.name]),
                knn=Interval.of(shares[each.name]),
                behind=_behind(shares[each.name], best) if number else None,
                untrained=fmean(of["untrained"] for of in values[each.name]),
                seconds=fmean(of["seconds"] for of in values[each.name]),
                entrant=each,
            )
            for number, each in enumerate(order)
        ),
        seeds=tuple(whole),
    )


def _behind(shares: Sequence[float], best: Sequence[float]) -> Interval:
    return Interval.of([own - other for own, other in zip(shares, best, strict=True)])


def rows(found: Standing) -> Iterator[tuple[str, ...]]:
    """Yield the table, head first, in at most 80 columns."""
    yield ("method", "kNN top-1, %", "behind the best", "steps", "time")
    for place in found.places:
        yield (
            place.name if len(place.name) <= WIDEST else place.name[: WIDEST - 1] + "\u2026",
            percents(place.knn),
            difference(place.behind),
            f"{place.entrant.steps:,}",
            duration(place.seconds),
        )


def baselines(found: Standing) -> str:
    """Return what no training reaches, in a line below the table."""
    shares = sorted(100 * place.untrained for place in found.places)
    low, high = f"{shares[0]:.1f}", f"{shares[-1]:.1f}"
    said = f"untrained: {low}" + (f" to {high}" if high != low else "")
    pixels = found.raw_pixels
    return said + ("" if pixels is None else f"; raw pixels: {100 * pixels:.1f}")


def libraries(found: Standing) -> list[str]:
    """Return a sentence for each other library, with its version."""
    there = dict.fromkeys(p.entrant.library for p in found.places if p.entrant.by is not None)
    return [
        f"{library}: its own loop, heads, loss and views, with the same network, batches, "
        "optimiser and settings"
        for library in there
    ]


def percents(of: Interval) -> str:
    """Return a share in per cent with half of its interval: ``81.3 ± 1.2``."""
    half = "" if math.isinf(of.high) else f" ± {100 * (of.high - of.mean):.1f}"
    return f"{100 * of.mean:.1f}{half}"


def difference(of: Interval | None) -> str:
    """Return a difference in points with its interval: ``-2.9 (-4.0 to -1.8)``."""
    if of is None:
        return "-"
    between = "" if math.isinf(of.low) else f" ({100 * of.low:+.1f} to {100 * of.high:+.1f})"
    return f"{100 * of.mean:+.1f}{between}"


def document(found: Standing, compute: str, data: str) -> dict[str, Any]:
    """Return all of it as plain values, for JSON."""
    return {
        "data": data,
        "compute": compute,
        "seeds": list(found.seeds),
        "verdict": found.verdict,
        "raw_pixels_knn_top1": found.raw_pixels,
        "methods": [_plain(place) for place in found.places],
    }


def _plain(place: Place) -> dict[str, Any]:
    def interval(of: Interval | None) -> dict[str, float | None] | None:
        if of is None:
            return None
        return {k: v if math.isfinite(v) else None for k, v in attrs.asdict(of).items()}

    entrant = place.entrant
    return {
        "method": place.name,
        "knn_top1": interval(place.knn),
        "by_seed": list(place.shares),
        "behind": interval(place.behind),
        "untrained_knn_top1": place.untrained,
        "seconds": place.seconds,
        "steps": entrant.steps,
        "batch_size": entrant.batch,
        "backbone": entrant.network,
        "library": entrant.library or None,
    }


def _all(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
