"""Images that were found to be similar: as plain values, as a list and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.data.base import Split
from coview.data.loader import read_batches
from coview.views.sheet import RIGHT, WRONG, Cell, draw_sheet, save_sheet


@attrs.frozen(eq=False)
class Picture:
    """An image of a data set, or one that was asked for.

    Attributes:
        index: its row in the table of ``coview embed``; None: it is not in the data set.
        name: its file below the data set's folder, or as it was asked for; None: it has none.
        path: its file, if it is in one.
        label: its class, if that is known.
        split, row: where its pixels are.
    """

    index: int | None
    name: str | None
    path: str | None
    label: str | None
    split: Split
    row: int

    @property
    def title(self) -> str:
        """What it is called."""
        return self.path or self.name or f"image {self.index}"

    def pixels(self) -> Tensor:
        """Return (C, S, S) float in [0, 1], as the network gets it."""
        return next(read_batches(self.split, [torch.tensor([self.row])]))[0].float().cpu() / 255


@attrs.frozen(eq=False)
class Found:
    """A query with the images that are nearest to it.

    Attributes:
        query: the image.
        neighbours: the nearest images, the nearest first.
        similarities: their cosines with the query.
        guess: the class that the neighbours vote for, where mistakes are looked at.
        confidence: the share of the vote that this class has.
    """

    query: Picture
    neighbours: tuple[Picture, ...]
    similarities: tuple[float, ...]
    guess: str | None = None
    confidence: float | None = None

    @property
    def indices(self) -> tuple[int | None, ...]:
        """The neighbours' rows in the table of ``coview embed``."""
        return tuple(picture.index for picture in self.neighbours)

    @property
    def paths(self) -> tuple[str | None, ...]:
        """The neighbours' files, where they are in files."""
        return tuple(picture.path for picture in self.neighbours)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        voted = {} if self.guess is None else {"guess": self.guess, "confidence": self.confidence}
        pairs = zip(self.neighbours, self.similarities, strict=True)
        return {
            **_plain(self.query),
            **voted,
            "neighbours": [{**_plain(p), "similarity": similarity} for p, similarity in pairs],
        }


@attrs.frozen(eq=False, repr=False)
class Neighbours(Sequence[Found]):
    """What :func:`coview.neighbours` found, by query; it prints as a list and draws itself.

    Attributes:
        found: a query with its neighbours, each.
        weights: whose features were compared.
        data: name of the data that were searched.
        searched: number of images that were searched.
    """

    found: tuple[Found, ...]
    weights: str
    data: str
    searched: int

    def __getitem__(self, index: Any) -> Any:
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the list: each query, then its neighbours with similarity, class and name."""
        width = max(len(p.label or "") for found in self.found for p in found.neighbours)
        for found in self.found:
            known = found.query.label
            if found.guess is not None:
                known = f"{known}, taken for {found.guess} ({100 * (found.confidence or 0):.0f} %)"
            yield f"{found.query.title}{f': {known}' if known else ''}"
            for picture, similarity in zip(found.neighbours, found.similarities, strict=True):
                yield f"  {similarity:6.3f}  {(picture.label or '').ljust(width)}  {picture.title}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "weights": self.weights,
            "data": self.data,
            "searched": self.searched,
            "queries": [found.as_dict() for found in self.found],
        }

    def draw(self, path: str | Path) -> None:
        """Write a PNG with one row per query: the image, then the nearest ones.

        A green frame is the query's own class, a red one another.

        Raises:
            CoviewError: the file cannot be written.
        """
        most = max(len(found.neighbours) for found in self.found)
        titles = ["query", *(f"nearest {number}" for number in range(1, most + 1))]
        save_sheet(draw_sheet(titles, [_row(found) for found in self.found]), Path(path))


def _plain(picture: Picture) -> dict[str, Any]:
    return {name: getattr(picture, name) for name in ("index", "name", "path", "label")}


def _row(found: Found) -> list[Cell]:
    query = found.query
    guess = None if found.guess is None else f"taken for {found.guess}"
    named = Path(query.path).name if query.path else None if query.label else query.title
    cells = [Cell(query.pixels(), tuple(filter(None, (named, query.label, guess))))]
    for picture, similarity in zip(found.neighbours, found.similarities, strict=True):
        frame = None
        if picture.label is not None and query.label is not None:
            frame = RIGHT if picture.label == query.label else WRONG
        below = (f"{similarity:.3f}", *([picture.label] if picture.label is not None else []))
        cells.append(Cell(picture.pixels(), below, frame))
    return cells
