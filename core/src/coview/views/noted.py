"""What was drawn for views: kept while someone looks at them, and told in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import attrs
from torch import Tensor

from coview.views.operations import NEUTRAL, Blur, Crop, Flip, Grey, Jitter, Solarize

STEPS = ("brightness", "contrast", "saturation", "hue")
Box = tuple[float, float, float, float]
"""Top, left, height and width of a crop, in pixels of the image that it is cut from."""


@attrs.define(eq=False)
class Note:
    """What one call of a fused chain drew, for some views of a batch.

    Attributes:
        columns: for each operation, its description for each view.
        drawn: for each operation, its parameters by name, (V, B) each; empty if it is not used.
        orders: by operation, each view's order of a jitter's steps.
        width: of the images, or (B,) of images at their own sizes.
        views: which of the component's views these are.
    """

    columns: Sequence[Sequence[Any]]
    drawn: Sequence[Mapping[str, Tensor]]
    orders: Mapping[int, Sequence[Sequence[int]]]
    width: int | Tensor
    views: tuple[int, ...] = ()


_KEPT: ContextVar[list[Note] | None] = ContextVar("notes", default=None)


@contextmanager
def noting() -> Iterator[list[Note]]:
    """Keep what fused chains draw inside; the list is filled as views are made."""
    kept: list[Note] = []
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def wanted() -> bool:
    """Return whether someone keeps notes."""
    return _KEPT.get() is not None


def keep(note: Note) -> None:
    """Keep a note, if they are wanted."""
    kept = _KEPT.get()
    if kept is not None:
        kept.append(note)


def belong(views: Sequence[int]) -> None:
    """Say of which views the latest notes are."""
    for note in _KEPT.get() or ():
        note.views = note.views or tuple(views)


@attrs.frozen
class Fired:
    """What was done to an image to make a view of it.

    Attributes:
        box: the crop; None: the whole image.
        words: a line for each operation that changed the image, in order: what and how much.
    """

    box: Box | None
    words: tuple[str, ...]


def fired(notes: Sequence[Note], view: int, row: int) -> Fired | None:
    """Return what was done to the image of a row for a view; None: it was not noted.

    A component that makes all its views of one rendered image has that one's for all of them.
    """
    known = {one for note in notes for one in note.views}
    view = 0 if known == {0} else view
    theirs = [note for note in notes if view in note.views]
    if not theirs:
        return None
    box, words = None, []
    for note in theirs:
        at = note.views.index(view)
        box = _box(note, at, row) or box
        words += [word for k in range(len(note.columns)) for word in _words(note, k, at, row)]
    return Fired(box, tuple(words))


def _box(note: Note, view: int, row: int) -> Box | None:
    kinds = [type(column[view]) for column in note.columns]
    if Crop not in kinds or not note.drawn[kinds.index(Crop)]:
        return None
    at = kinds.index(Crop)
    drawn = {name: float(values[view, row]) for name, values in note.drawn[at].items()}
    flip = kinds.index(Flip) if Flip in kinds else at
    if flip < at and _on(note, flip, view, row):
        # A crop of the mirrored image is cut from this image's other side.
        width = note.width if isinstance(note.width, int) else float(note.width[row])
        drawn["left"] = width - drawn["left"] - drawn["width"]
    return drawn["top"], drawn["left"], drawn["height"], drawn["width"]


def _on(note: Note, k: int, view: int, row: int) -> bool:
    drawn = note.drawn[k]
    return "on" in drawn and bool(drawn["on"][view, row])


def _words(note: Note, k: int, view: int, row: int) -> Iterator[str]:
    operation = note.columns[k][view]
    if not _on(note, k, view, row):
        return
    if isinstance(operation, Jitter):
        order = note.orders[k][view] if k in note.orders else range(len(STEPS))
        for step in order:
            value = float(note.drawn[k]["factors"][step, view, row])
            if value != NEUTRAL[step]:
                # A turn of the hue has a sign, unless it rounds to none.
                yield f"{STEPS[step]} {round(value, 2) + 0.0:{'+' if step == 3 else ''}.2f}"
    elif isinstance(operation, Blur):
        yield f"blur {float(note.drawn[k]['sigma'][view, row]):.1f} px"
    else:
        names: dict[type, str] = {Flip: "flip", Grey: "grey", Solarize: "solarize"}
        yield names[type(operation)]
