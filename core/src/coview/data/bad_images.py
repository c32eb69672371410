"""Images that cannot be read: what takes their place, and when it is too many.

A run must not end at night because one file of a million is cut off. So a
damaged image's place is taken by another of the same split, drawn from the
damaged one's number alone: whatever the batch, epoch or process, and after a
run is resumed, it is the same one. Which images those are is kept, so that a
run can name them and an evaluation can leave them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import Dataset

from coview.errors import CoviewError
from coview.seeds import hashed

SHARE = 0.01
"""Of a split's images; where more are bad, something else is wrong."""
NAMED = 10
TRIES = 32
"""Bad images in a row after which the storage is taken to be gone: 1 % bad make 1e-64 of it."""

Fault = tuple[int, str]
"""An image's number and a sentence that names it and says what is wrong."""


class DataError(CoviewError):
    """The data cannot be trained on, or measured on, any further."""


class BadImageError(DataError):
    """An image that cannot be read; the sentence names it."""


class BadImages:
    """The images of one split that were found to be bad."""

    def __init__(self, policy: str = "skip", known: Iterable[Fault] = ()) -> None:
        """Start with the faults that are known.

        Args:
            policy: ``"skip"``: let others take their place, up to a share of
                :data:`SHARE`; ``"stop"``: the first is an error.
            known: faults that are no news.
        """
        self.policy = policy
        self.faults: dict[int, str] = dict(known)
        self._above: tuple[BadImages, list[int], int] | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.faults)

    def add(self, faults: Iterable[Fault], count: int) -> None:
        """Take in faults, known ones too.

        Args:
            faults: as :func:`read` gives them.
            count: of the split's images.

        Raises:
            DataError: the policy is to stop, or they are too many.
        """
        for row, sentence in faults:
            with self._lock:
                self.faults.setdefault(row, sentence)
            if self._above is not None:
                # A part has no share of its own: few images may happen to be the bad ones.
                whole, rows, of = self._above
                whole.add([(rows[row], sentence)], of)
            elif self.policy == "stop":
                raise BadImageError(
                    f"{sentence} (--on-bad-image skip lets another take its place.)"
                )
            elif len(self.faults) > allowed(count):
                raise DataError(
                    f"{len(self.faults)} of {count} images cannot be read, which is more than "
                    f"{SHARE:.0%}: {self.named()}"
                )

    def named(self, most: int = NAMED) -> str:
        """Return the sentences of the first images, and how many more there are."""
        first = [self.faults[row] for row in sorted(self.faults)[:most]]
        more = len(self.faults) - len(first)
        return " ".join([*first, *([f"And {more} more."] if more else [])])

    def facts(self) -> dict[str, Any]:
        """Return how many there are and the first of them, for JSON."""
        first = [self.faults[row] for row in sorted(self.faults)[:NAMED]]
        return {"count": len(self.faults), "first": first}

    def part(self, rows: Sequence[int], count: int) -> BadImages:
        """Return those of a part of a split of ``count``; what is found there is known here too."""
        made = BadImages(self.policy)
        if self.faults:
            places = {row: place for place, row in enumerate(rows)}
            made.faults = {places[r]: s for r, s in self.faults.items() if r in places}
        made._above = (self, list(rows), count)
        return made

    def __getstate__(self) -> dict[str, Any]:
        # Locks cannot be sent to another process.
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_lock": Lock()}


def allowed(count: int) -> int:
    """Return how many of ``count`` images may be bad: 1 %, and one of a set below a hundred."""
    return max(1, int(count * SHARE))


def stand_ins(row: int, count: int, labels: Tensor | None = None) -> Iterator[int]:
    """Yield the images that may take the place of image ``row``, in their order of preference.

    Args:
        row: of the bad image.
        count: of all images.
        labels: (count,) int64: take images of the same class, if there are any. Only
            for learning with labels, which would otherwise be wrong.
    """
    pool: Sequence[int] = range(count)
    if labels is not None:
        same = (labels == labels[row]).nonzero().flatten().tolist()
        pool = same if len(same) > 1 else pool
    if len(pool) < 2:
        return
    attempt = 0
    while True:
        other = pool[hashed(f"{row}/{attempt}") % len(pool)]
        if other != row:
            yield other
        attempt += 1


def read(images: Any, row: int, labels: Tensor | None = None) -> tuple[Tensor, list[Fault]]:
    """Return an image, or the one that takes its place, and what was wrong on the way.

    Raises:
        DataError: neither it nor many others can be read.
    """
    faults: list[Fault] = []
    try:
        return images[row], faults
    except BadImageError as error:
        faults.append((row, str(error)))
    for other in islice(stand_ins(row, len(images), labels), TRIES):
        try:
            return images[other], faults
        except BadImageError as error:
            faults.append((other, str(error)))
    if len(faults) == 1:
        raise BadImageError(faults[0][1])
    raise DataError(
        f"{faults[0][1]} Nor can {len(faults) - 1} others that were tried in its place: are the "
        "data still there?"
    )


@attrs.frozen(eq=False)
class Readable(Dataset[Any]):
    """Images with their faults: :func:`read` for each index."""

    images: Any
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, list[Fault]]:
        return read(self.images, row, self.labels)


def stacked(items: list[tuple[Tensor, list[Fault]]]) -> tuple[Tensor, list[Fault]]:
    """Return a batch of what :class:`Readable` gives, and the faults of all."""
    return torch.stack([image for image, _ in items]), [f for _, faults in items for f in faults]
