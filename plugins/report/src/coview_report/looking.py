"""What has to be computed with a run's weights: the map, the neighbours, the views."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from sklearn.decomposition import PCA

import coview
from coview.api.subjects import subject
from coview.data.base import ImageData, Split
from coview.data.loader import read_batches
from coview.data.picking import evenly
from coview.data.splits import part
from coview.errors import CoviewError
from coview.evaluation.features import features
from coview_report.attending import Attention, attended
from coview_report.images import of_file, of_pixels

MOST_POINTS = 900
"""Images of the map, each of which is in the page."""
THUMBNAIL = 48
"""Pixels per side of the map's images."""
PICTURE = 96
"""Pixels per side of queries and neighbours."""
MOST_SEARCHED = 60_000
"""Images among which neighbours are looked for; more are left to ``coview neighbours``."""


@attrs.frozen(eq=False)
class Map:
    """A map of embeddings in two dimensions.

    Attributes:
        way: how it was made: ``PCA`` or ``UMAP``.
        points: ``x``, ``y``, ``image``, ``class`` and ``name`` of each image.
        classes: the names of the classes; empty if there are none.
        shown, images: the number of images on it, and of those it was chosen from.
        split: which images those are: ``test`` or ``training``.
        kept: the share of the variance that the two directions have; None: not of PCA.
    """

    way: str
    points: tuple[dict[str, Any], ...]
    classes: tuple[str, ...]
    shown: int
    images: int
    split: str
    kept: float | None = None


@attrs.frozen(eq=False)
class Near:
    """An image of a row of neighbours: its data URI, class, similarity and whether it fits."""

    image: str
    title: str
    label: str | None
    similarity: float | None = None
    right: bool | None = None


@attrs.frozen(eq=False)
class NearRow:
    """A query and its neighbours; ``guess`` is the class that they vote for."""

    query: Near
    neighbours: tuple[Near, ...]
    guess: str | None
    confidence: float | None


@attrs.frozen(eq=False)
class Looked:
    """What was seen of a run; each part may be missing, and ``notes`` say why.

    Attributes:
        maps: PCA, and UMAP where it is installed.
        rows: neighbours of test images, of mistakes first.
        mistakes: whether the rows are of mistakes.
        searched: number of images that were searched.
        views: the sheet of views as a data URI.
        attention: where a transformer looks; empty: it has no class token.
    """

    maps: tuple[Map, ...] = ()
    rows: tuple[NearRow, ...] = ()
    mistakes: bool = False
    searched: int = 0
    views: str | None = None
    attention: tuple[Attention, ...] = ()
    notes: tuple[str, ...] = ()


def look(run: Any, *, device: str = "auto", workers: int = 0) -> Looked:
    """Look at a run.

    Args:
        run: the directory of a finished run, or a run in memory, which may go on afterwards.
        device, workers: as for :func:`coview.evaluate`.
    """
    in_memory = hasattr(run, "method")
    path = Path(run.path if in_memory else run)
    notes: list[str] = []
    found: dict[str, Any] = {"views": _tried("the views", notes, lambda: _views(path))}
    if not in_memory and not (path / "backbone.safetensors").is_file():
        notes.append(
            "The map and the neighbours need the weights of a finished run: there are none yet."
        )
        return Looked(**found, notes=tuple(notes))
    options = {"device": device, "workers": workers}
    mapped = _tried("the map", notes, lambda: _maps(run, options))
    maps, data = mapped or ((), None)
    if data is not None and len(data.reference) > MOST_SEARCHED:
        notes.append(
            f"Neighbours are not looked for among {len(data.reference):,} images here; "
            "coview neighbours RUN --mistakes does."
        )
    elif data is not None:
        near = _tried("the neighbours", notes, lambda: _neighbours(run, data.labelled, options))
        found |= near or {}
    attention = _tried("attention", notes, lambda: attended(run, options)) or ()
    return Looked(maps=maps, attention=attention, **found, notes=tuple(notes))


def _tried(what: str, notes: list[str], make: Callable[[], Any]) -> Any:
    """Return what is made; where that fails, a note says why and the page goes without it."""
    try:
        # What the functions tell on a terminal has no place in a page.
        with contextlib.redirect_stderr(io.StringIO()):
            return make()
    except (CoviewError, OSError, RuntimeError) as error:
        notes.append(f"No picture of {what}: {error}")
        return None


def _views(path: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder) / "views.png"
        coview.views(path, out=sheet, images=6, draws=1)
        return of_file(sheet)


def _maps(run: Any, options: dict[str, Any]) -> tuple[tuple[Map, ...], ImageData]:
    looked_at = subject(run, None, **options)
    data = looked_at.data
    split = data.train if data.test is None else data.test
    if next(read_batches(split, [torch.tensor([0])])).ndim != 4:
        raise CoviewError("these are signals, not images.")
    rows = evenly(split, MOST_POINTS)
    chosen = part(split, rows)
    vectors = features(looked_at.network, chosen, whole=True, **looked_at.options)
    good = (~vectors.isnan().any(dim=1)).nonzero().flatten()
    if len(good) < 3:
        raise CoviewError("it needs at least three images.")
    common = {
        "classes": _classes(data, chosen),
        "shown": len(good),
        "images": len(split),
        "split": "training" if data.test is None else "test",
    }
    about = _about(data, chosen, good)
    units = torch.nn.functional.normalize(vectors[good], dim=1).numpy()
    places, kept = _pca(units)
    found = [Map("PCA", _points(places, about), kept=kept, **common)]
    if (placed := _umap(units)) is not None:
        found.append(Map("UMAP", _points(placed, about), **common))
    return tuple(found), data


def _pca(units: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
    fitted = PCA(2, svd_solver="full").fit(units)
    return fitted.transform(units), float(fitted.explained_variance_ratio_.sum())


def _umap(units: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    try:
        from umap import UMAP  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    placed: np.ndarray[Any, Any] = UMAP(metric="cosine", random_state=0).fit_transform(units)
    return placed


def _points(
    places: np.ndarray[Any, Any], about: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    largest = float(np.abs(places).max()) or 1.0
    return tuple(
        {"x": round(float(x) / largest, 4), "y": round(float(y) / largest, 4), **facts}
        for (x, y), facts in zip(places, about, strict=True)
    )


def _about(data: ImageData, split: Split, rows: torch.Tensor) -> list[dict[str, Any]]:
    """Return the image, class and name of each row."""
    batches = read_batches(split, list(rows.split(256)))
    pixels = [image.float() / 255 for batch in batches for image in batch]
    found = []
    for row, image in zip(rows.tolist(), pixels, strict=True):
        facts: dict[str, Any] = {"image": of_pixels(image, THUMBNAIL)}
        if split.labels is not None:
            facts["class"] = _class(data, int(split.labels[row]))
        if split.names is not None:
            facts["name"] = split.names[row]
        found.append(facts)
    return found


def _classes(data: ImageData, split: Split) -> tuple[str, ...]:
    if split.labels is None:
        return ()
    return tuple(_class(data, label) for label in split.labels.unique().tolist())


def _class(data: ImageData, label: int) -> str:
    return data.classes[label] if label < len(data.classes) else str(label)


def _neighbours(run: Any, labelled: bool, options: dict[str, Any]) -> dict[str, Any]:
    mistakes = labelled
    try:
        found = coview.neighbours(run, k=6, images=8, mistakes=mistakes, **options)
    except CoviewError:
        if not mistakes:
            raise
        # Where there are no mistakes, there are still images to look at.
        mistakes = False
        found = coview.neighbours(run, k=6, images=8, **options)
    rows = [
        NearRow(
            _near(each.query),
            tuple(
                _near(picture, similarity, each.query.label)
                for picture, similarity in zip(each.neighbours, each.similarities, strict=True)
            ),
            each.guess,
            each.confidence,
        )
        for each in found
    ]
    return {"rows": tuple(rows), "mistakes": mistakes, "searched": found.searched}


def _near(picture: Any, similarity: float | None = None, truth: str | None = None) -> Near:
    known = picture.label is not None and truth is not None
    right = picture.label == truth if known else None
    name = picture.name or picture.title
    return Near(of_pixels(picture.pixels(), PICTURE), name, picture.label, similarity, right)
