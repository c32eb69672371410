"""Looking at what a network has learned: the images that it takes for the most similar."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from coview.data.bad_images import BadImages
from coview.data.base import ImageData, Split
from coview.data.decode import Files
from coview.data.loader import read_batches
from coview.data.picking import evenly
from coview.data.splits import part
from coview.data.values import recorded
from coview.errors import CoviewError, RequestError
from coview.evaluation.embeddings import data_order
from coview.evaluation.features import TEST, TRAINING, features
from coview.evaluation.found import Found, Neighbours, Picture
from coview.evaluation.knn import fitting, labelled_splits, vote
from coview.evaluation.metrics import class_count
from coview.evaluation.neighbours import nearest
from coview.evaluation.rows import InMemory
from coview.evaluation.subject import Subject


def look(
    subject: Subject,
    paths: Sequence[str] | None = None,
    k: int = 5,
    *,
    images: int = 8,
    mistakes: bool = False,
) -> Neighbours:
    """Search a subject's data; see :func:`coview.neighbours`.

    Args:
        subject: the network, and the data to search.
        paths: files to look for; None: some of the data's test images.
        k, images, mistakes: see :func:`coview.neighbours`.
    """
    looking = _Looking(subject.network, subject.data, subject.options)
    if paths is not None:
        found, searched = looking.at_files(paths, k)
    else:
        found, searched = (looking.at_mistakes if mistakes else looking.at_some)(images, k)
    return Neighbours(tuple(found), str(subject.weights), subject.data.name, searched)


@attrs.frozen(eq=False)
class _Shelf:
    """Readable images with their features (n, D) and labels (n,), if they have any."""

    pictures: list[Picture]
    features: Tensor
    labels: Tensor | None

    def without(self, rows: Sequence[int]) -> _Shelf:
        """Return only the images at ``rows``."""
        labels = None if self.labels is None else self.labels[rows]
        return _Shelf([self.pictures[row] for row in rows], self.features[rows], labels)


class _Looking:
    """Searches a data set with a network; see :func:`coview.neighbours`."""

    def __init__(self, network: Any, data: ImageData, options: dict[str, Any]) -> None:
        self.network, self.data, self.options = network, data, options
        if next(read_batches(data.train, [torch.tensor([0])])).ndim != 4:
            raise RequestError("Only images can be looked at, not signals.")
        self.folder = Path(data.name.partition(":")[2])
        self.splits = [split for split in (data.train, data.test) if split is not None]
        order = data_order(self.splits)
        self.indices = np.empty_like(order)
        self.indices[order] = np.arange(len(order))

    def at_files(self, paths: Sequence[str], k: int) -> tuple[list[Found], int]:
        """Search all images for those nearest to files; a file is not its own neighbour."""
        card = self.network.card
        reading = card.values()
        if self.data.reading:  # as it was asked for, for both
            reading = attrs.evolve(reading, **recorded(self.data.reading))
        files = Files(tuple(paths), card.image_size, card.channels, reading=reading)
        split = Split(files, bad=BadImages("stop"))
        queries = features(self.network, split, **self.options)
        shelf = self._shelf(*self.splits)
        own = {os.path.realpath(p.path): n for n, p in enumerate(shelf.pictures) if p.path}
        twins = [own.get(os.path.realpath(path)) for path in paths]
        asked = []
        for row, (path, twin) in enumerate(zip(paths, twins, strict=True)):
            same = None if twin is None else shelf.pictures[twin]
            known = (None, None) if same is None else (same.index, same.label)
            asked.append(Picture(known[0], path, path, known[1], split, row))
        return self._search(asked, queries, shelf, k, twins), len(shelf.pictures)

    def at_some(self, count: int, k: int) -> tuple[list[Found], int]:
        """Search the training images for those nearest to test images of several classes."""
        test = self.data.test
        if test is None:  # then training images are looked at, each without itself
            shelf = self._shelf(self.data.train)
            chosen = set(evenly(self.data.train, count).tolist())
            places = [n for n, picture in enumerate(shelf.pictures) if picture.row in chosen]
            asked = shelf.without(places)
            found = self._search(asked.pictures, asked.features, shelf, k, places)
            return found, len(shelf.pictures)
        shelf = self._shelf(self.data.reference)
        rows = evenly(test, count).tolist()
        queries = features(self.network, part(test, torch.tensor(rows)), whole=True, **self.options)
        pictures = self._pictures(test)
        good = _readable(queries)
        asked_for = [pictures[rows[place]] for place in good]
        return self._search(asked_for, queries[good], shelf, k), len(shelf.pictures)

    def at_mistakes(self, count: int, k: int) -> tuple[list[Found], int]:
        """The same for test images whose neighbours vote for another class."""
        reference, test = labelled_splits(self.data)
        shelf, asked = self._shelf(reference), self._shelf(test)
        assert shelf.labels is not None and asked.labels is not None
        classes = class_count(self.data, shelf.labels, asked.labels)
        voters = min(fitting(shelf.labels), len(shelf.labels))  # as in coview evaluate knn
        scores = vote(shelf.features, shelf.labels, asked.features, classes, voters)
        shares, guesses = (scores / scores.sum(dim=1, keepdim=True)).max(dim=1)
        wrong = (guesses != asked.labels).nonzero().flatten()
        if not len(wrong):
            raise CoviewError(f"There are no mistakes among the {len(guesses)} test images.")
        first = wrong[shares[wrong].argsort(descending=True, stable=True)][:count].tolist()
        asked = asked.without(first)
        found = [
            attrs.evolve(each, guess=self._class(int(guesses[row])), confidence=float(shares[row]))
            for each, row in zip(
                self._search(asked.pictures, asked.features, shelf, k), first, strict=True
            )
        ]
        return found, len(shelf.pictures)

    def _search(
        self,
        asked: Sequence[Picture],
        queries: Tensor,
        shelf: _Shelf,
        k: int,
        twins: Sequence[int | None] = (),
    ) -> list[Found]:
        """Return the k nearest to each query, of all but its twin on the shelf."""
        rows = InMemory(shelf.features)
        most = min(k + any(twin is not None for twin in twins), len(rows))
        found: list[Found] = []
        for cosines, places in nearest(rows, queries, most):
            for near, which in zip(cosines.tolist(), places.tolist(), strict=True):
                twin = twins[len(found)] if twins else None
                kept = [(n, c) for n, c in zip(which, near, strict=True) if n != twin][:k]
                pictures = tuple(shelf.pictures[n] for n, _ in kept)
                found.append(Found(asked[len(found)], pictures, tuple(c for _, c in kept)))
        return found

    def _shelf(self, *splits: Split) -> _Shelf:
        """Return all readable images of splits."""
        rows = torch.cat([self._features(split) for split in splits])
        labels = [split.labels for split in splits if split.labels is not None]
        known = torch.cat(labels) if len(labels) == len(splits) else None
        pictures = [picture for split in splits for picture in self._pictures(split)]
        return _Shelf(pictures, rows, known).without(_readable(rows))

    def _features(self, split: Split) -> Tensor:
        """Return a row for each image of a split, of NaN for one that cannot be read."""
        what = TEST if split is self.data.test else TRAINING
        if self.data.test is None:
            what = "images"
        return features(self.network, split, whole=True, what=what, **self.options)

    def _pictures(self, split: Split) -> list[Picture]:
        """Return every image of a split."""
        start = 0
        for other in self.splits:
            if other is split:
                break
            start += len(other)
        labels = [None] * len(split) if split.labels is None else split.labels.tolist()
        names = split.names or [None] * len(split)
        return [
            Picture(
                int(self.indices[start + row]) if start < len(self.indices) else None,
                name,
                self._path(name),
                None if label is None else self._class(label),
                split,
                row,
            )
            for row, (name, label) in enumerate(zip(names, labels, strict=True))
        ]

    def _path(self, name: str | None) -> str | None:
        path = None if name is None else self.folder / name
        return str(path) if path is not None and path.is_file() else None

    def _class(self, label: int) -> str:
        classes = self.data.classes
        return classes[label] if label < len(classes) else str(label)


def _readable(rows: Tensor) -> list[int]:
    """Return which rows are no NaN, which stands for an image that cannot be read."""
    kept: list[int] = (~rows.isnan().any(dim=1)).nonzero().flatten().tolist()
    return kept
