"""A study's picture: every seed as a dot, means with intervals; a grid as a heat map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from coview.files import replacing
from coview.studies.study import Quantity, Study
from coview.studies.verdict import Interval

INK, ACCENT, FAINT = "#1f2933", "#0b7285", "#adb5bd"


def draw(study: Study, found: Mapping[str, Any], path: Path) -> None:
    """Write the picture as SVG.

    Args:
        study: the study.
        found: its numbers (:func:`coview.studies.report.document`).
        path: the file.
    """
    figure = _grid(study, found) if study.grid else _dots(study, found)
    FigureCanvasSVG(figure)
    with replacing(path) as temporary:
        # Without a date, so that the same numbers give the same file.
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _values(quantity: Quantity, found: Mapping[str, Any], variant: str, key: str) -> list[float]:
    scale = 100 if quantity.percent else 1
    return [scale * run["values"][key] for run in found["variants"][variant]["runs"]]


def _dots(study: Study, found: Mapping[str, Any]) -> Figure:
    names = list(found["variants"])
    panels = len(study.measure)
    size = (3 + 3.2 * panels, 0.9 + 0.34 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    for axis, (key, quantity) in zip(axes, study.measure.items(), strict=True):
        for place, name in enumerate(names):
            values = _values(quantity, found, name, key)
            interval = Interval.of(values)
            if len(values) > 1:
                axis.plot([interval.low, interval.high], [place, place], color=FAINT, linewidth=3)
            axis.plot(values, [place] * len(values), "o", color=ACCENT, markersize=4, alpha=0.6)
            axis.plot(interval.mean, place, "|", color=INK, markersize=13, markeredgewidth=2)
        axis.set_xlabel(quantity.title)
        axis.grid(axis="x", color="#e9ecef")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return figure


def _grid(study: Study, found: Mapping[str, Any]) -> Figure:
    assert study.grid is not None
    rows, columns = study.grid
    key, quantity = next(iter(study.measure.items()))
    means = np.array(
        [[np.mean(_values(quantity, found, f"{r} + {c}", key)) for c in columns] for r in rows]
    )
    figure = Figure(figsize=(2.4 + 0.8 * len(columns), 1.6 + 0.6 * len(rows)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(means, cmap="viridis")
    dark = means < (means.min() + means.max()) / 2
    for row, column in np.ndindex(*means.shape):
        colour = "white" if dark[row, column] else "black"
        text = f"{means[row, column]:.1f}"
        axis.text(column, row, text, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    figure.colorbar(image, label=quantity.title)
    return figure
