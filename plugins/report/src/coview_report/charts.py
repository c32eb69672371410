"""Charts as Vega-Lite specifications; colours are the page's, which knows light from dark."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import attrs

from coview_report.reading import Point, RunFiles
from coview_report.standing import Standing

Spec = dict[str, Any]

MOST_POINTS, OF_ALL_RUNS, FEWEST_POINTS = 400, 2_400, 40
"""Points of a curve, and of all in a chart; of longer ones, neighbouring readings are averaged."""
HEIGHT = 190
"""Pixels of a chart; its width is that of its place."""
MAP_HEIGHT, PLACE = 460, 44
MOST_COLOURS = 10
"""Classes that are told apart by colour."""


@attrs.frozen
class Range:
    """What is healthy in a measurement, and below which value a run is warned.

    Attributes:
        bound: below it, embeddings no longer tell images apart; None: there is no such bound.
        healthy: in words.
    """

    bound: float | None
    healthy: str


COLLAPSE: Mapping[str, tuple[str, Range]] = {
    "collapse/std": ("Spread", Range(0.1, "towards 1, the spread of random directions")),
    "collapse/effective_rank": ("Effective rank", Range(2.0, "many directions, not 1 or 2")),
    "collapse/uniformity": ("Uniformity", Range(None, "towards -4; 0 when all are equal")),
    "collapse/alignment": ("Alignment", Range(None, "falls while uniformity stays low")),
    "assignment_information": ("Assignment information", Range(0.001, "between 0 and 1")),
}
"""The measurements of collapse (docs/collapse.md), with the bounds of the observer."""


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most ``most`` points, each the mean of neighbouring readings, the last one kept."""
    kept = [(x, y) for x, y in points if math.isfinite(y)]
    if len(kept) <= most:
        return kept
    size = -(-len(kept) // most)
    parts = [kept[start : start + size] for start in range(0, len(kept), size)]
    means = [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
    return [*means[:-1], kept[-1]]


def curve(
    runs: Sequence[RunFiles],
    metric: str,
    title: str,
    *,
    form: str = ".4~g",
    bound: float | None = None,
    log: bool = False,
) -> Spec | None:
    """Return a metric over epochs, a line for each run; None if no run has two readings of it.

    Args:
        form: how values are written, as d3-format has it.
        bound: draw the range below it as unhealthy.
        log: a logarithmic scale, if all values allow it.
    """
    most = max(FEWEST_POINTS, min(MOST_POINTS, OF_ALL_RUNS // len(runs)))
    rows = [
        {"epoch": x, "value": y, "run": run.name}
        for run in runs
        for x, y in thinned(run.points(metric), most)
    ]
    if len(rows) < 2:
        return None
    spread = [row["value"] for row in rows]
    far = log and min(spread) > 0 and max(spread) / min(spread) > 20
    scale = alt.Scale(type="log") if far else alt.Scale(zero=False, nice=True)
    axis = alt.Axis(tickCount=4, format=form, values=_decades(spread) if far else alt.Undefined)
    if bound is not None:
        scale = alt.Scale(domain=[0, max(*spread, bound * 1.2)], nice=True)
    base = (
        alt.Chart(alt.Data(values=rows))
        .transform_calculate(tip=_tip(len(runs), title, "datum.value", ".4~g"))
        .encode(
            x=_epochs(runs),
            y=alt.Y("value:Q", title=None, scale=scale, axis=axis),
            tooltip="tip:N",
        )
    )
    line = base.mark_line(point=len(rows) <= 24 * len(runs)).encode(**_by_run(runs))
    return _finished([*_below(bound), line, *_nearest(base)], title)


def knn(runs: Sequence[RunFiles]) -> Spec | None:
    """Return the kNN accuracy over epochs beside raw pixels and the untrained network."""
    rows = [
        {"epoch": x, "share": y, "run": run.name} for run in runs for x, y in accuracies(run) if y
    ]
    if not rows:
        return None
    levels = [
        {"share": value, "what": label if len(runs) == 1 else f"{label}, {run.name}"}
        for run in runs
        for metric, label in (
            ("raw_pixels_knn_top1", "raw pixels"),
            ("untrained_knn_top1", "untrained network"),
        )
        if (value := run.value(metric)) is not None
    ]
    y = alt.Y(
        "share:Q",
        title=None,
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(format=".0%", tickCount=5),
    )
    base = (
        alt.Chart(alt.Data(values=rows))
        .transform_calculate(tip=_tip(len(runs), "kNN top-1", "datum.share", ".1%"))
        .encode(x=_epochs(runs), y=y, tooltip="tip:N")
    )
    line = base.mark_line(point=True).encode(**_by_run(runs))
    if len(runs) > 1:
        levels = _common(levels, runs)
    rules = alt.Chart(alt.Data(values=levels)).encode(y=y)
    name = rules.mark_text(style="named", align="right", x="width", dy=-8).encode(text="what:N")
    # Names come last: they are read across a line that runs below them.
    layers = [rules.mark_rule(style="level"), line, name] if levels else [line]
    return _finished([*layers, *_nearest(base)], "kNN top-1 accuracy")


def places(stood: Standing) -> Spec:
    """Return the accuracies of compared methods: every seed, their mean and its interval."""
    order = [place.name for place in stood.places]
    y = alt.Y("method:N", sort=order, title=None, axis=alt.Axis(labelLimit=160, domain=False))
    x = alt.X(
        "share:Q",
        title="kNN top-1",
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(format=".0%", tickCount=6, grid=True),
    )
    seeds = [
        {"method": place.name, "share": share, "tip": {place.name: f"{share:.1%}", "seed": seed}}
        for place in stood.places
        for seed, share in zip(stood.seeds, place.shares, strict=True)
    ]
    means = [
        {
            "method": place.name,
            "share": place.knn.mean,
            "low": place.knn.low,
            "high": place.knn.high,
        }
        for place in stood.places
    ]
    colour = alt.Color("method:N", sort=order, legend=None)
    mean = alt.Chart(alt.Data(values=means)).encode(y=y)
    dots = alt.Chart(alt.Data(values=seeds)).mark_circle(size=70, opacity=0.8)
    layers: list[Any] = [dots.encode(x=x, y=y, color=colour, tooltip="tip:N")]
    layers.append(mean.mark_tick(thickness=3, size=26).encode(x=x, color=colour))
    if len(stood.seeds) > 1:
        interval = mean.mark_rule(strokeWidth=3, opacity=0.35)
        layers.insert(
            0, interval.encode(x=alt.X("low:Q", title="kNN top-1"), x2="high:Q", color=colour)
        )
    chart = alt.layer(*layers).properties(
        width="container",
        height=PLACE * len(order),
        description="kNN top-1 accuracy of each method: seeds, means and 95 % intervals",
    )
    spec: Spec = chart.to_dict()
    return spec


def accuracies(run: RunFiles) -> list[Point]:
    """Return a run's kNN accuracy over epochs: before, during and after training."""
    before = run.value("untrained_knn_top1")
    return [
        *([] if before is None else [(0.0, float(before))]),
        *run.points("online_knn_top1"),
        *run.points("knn_top1")[-1:],
    ]


def embedding_map(points: Sequence[Mapping[str, Any]], classes: Sequence[str], name: str) -> Spec:
    """Return a map of embeddings; whatever is nearest to the pointer shows its image.

    Args:
        points: ``x``, ``y``, perhaps ``class``, and ``tip``, which is shown at the pointer.
        classes: the classes in the order of their colours; empty: there are none.
        name: of the map, for those who do not see it.
    """
    near = alt.selection_point(
        name="near", on="pointerover", nearest=True, empty=False, clear="pointerout"
    )
    axis = alt.Axis(title=None, labels=False, ticks=False, grid=False, domain=False)
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X("x:Q", axis=axis, scale=alt.Scale(zero=False, nice=False, padding=12)),
        y=alt.Y("y:Q", axis=axis, scale=alt.Scale(zero=False, nice=False, padding=12)),
        tooltip="tip:N",
        size=alt.condition(near, alt.value(150), alt.value(34)),
        opacity=alt.condition(near, alt.value(1), alt.value(0.75)),
    )
    marks = base.mark_circle()
    if classes:
        # The page has the legend, which finds room on a narrow screen.
        many = alt.Undefined if told_apart(classes) else "sinebow"
        scale = alt.Scale(domain=list(classes), scheme=many)
        marks = marks.encode(color=alt.Color("class:N", legend=None, scale=scale))
    spec: Spec = (
        marks.add_params(near)
        .properties(width="container", height=MAP_HEIGHT, description=name)
        .to_dict()
    )
    return spec


def told_apart(classes: Sequence[str]) -> bool:
    """Return whether a map has a colour for each class."""
    return 0 < len(classes) <= MOST_COLOURS


def _common(levels: list[dict[str, Any]], runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """Return one level for raw pixels where all runs agree on it; others would hide each other."""
    found = {round(value, 4) for run in runs if (value := run.value("raw_pixels_knn_top1"))}
    if len(found) != 1 or len({run.data for run in runs}) != 1:
        return []
    return [{"share": found.pop(), "what": "raw pixels"}]


def _decades(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around positive values: a logarithmic axis' other lines are many."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(first, last + 1)]


def _epochs(runs: Sequence[RunFiles]) -> Any:
    """Return the axis that all curves of a page share, so that they can be read together."""
    last = max((x for run in runs for x, _ in run.points("epoch")), default=1.0) or 1.0
    scale = alt.Scale(domain=[0, last], nice=False)
    return alt.X("epoch:Q", title="epoch", scale=scale, axis=alt.Axis(tickCount=6, format=".4~g"))


def _tip(runs: int, title: str, value: str, form: str) -> str:
    """Return the expression of a tooltip.

    It is one object, so that the page can find it wherever the nearest point is looked for.
    """
    shown = {"epoch": "format(datum.epoch, '.4~g')", title: f"format({value}, '{form}')"}
    if runs > 1:
        shown = {"run": "datum.run", **shown}
    return f"{{{', '.join(f'{json.dumps(key)}: {found}' for key, found in shown.items())}}}"


def _by_run(runs: Sequence[RunFiles]) -> dict[str, Any]:
    if len(runs) == 1:
        return {}
    # A run has one colour on the whole page, also where others have no such metric.
    scale = alt.Scale(domain=[run.name for run in runs])
    return {"color": alt.Color("run:N", scale=scale, legend=None)}


def _below(bound: float | None) -> Iterable[Any]:
    """Yield the range of values of which a run is warned."""
    if bound is None:
        return
    band = alt.Chart(alt.Data(values=[{"low": 0, "high": bound, "what": "collapse"}]))
    low = alt.Y("low:Q", title=None)
    yield band.mark_rect(style="warned").encode(y=low, y2="high:Q")
    yield band.mark_rule(style="bound").encode(y=alt.Y("high:Q", title=None))


def _nearest(base: Any) -> Iterable[Any]:
    """Yield unseen points that tell their values wherever the pointer is nearest to them."""
    near = alt.selection_point(
        name="near", on="pointerover", nearest=True, empty=False, clear="pointerout"
    )
    yield (
        base.mark_point(filled=True, size=70)
        .encode(opacity=alt.condition(near, alt.value(1), alt.value(0)))
        .add_params(near)
    )


def _finished(layers: Sequence[Any], title: str) -> Spec:
    chart = alt.layer(*layers).properties(width="container", height=HEIGHT, description=title)
    spec: Spec = chart.to_dict()
    return spec
