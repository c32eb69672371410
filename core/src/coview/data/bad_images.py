"""Unreadable images: what takes their place, and when there are too many.

A run must not stop overnight because one file in a million is truncated. So
another image of the same split stands in for a damaged one. It is chosen by the
damaged image's index alone, so it is the same one in every batch, epoch and
process, and after a resume. The damaged images are recorded, so that a run can
name them and an evaluation can leave them out.
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
"""Largest share of a split that may be bad unless ``data.bad_limit`` says otherwise."""
NAMED = 10
TRIES = 32
"""Bad images in a row that mean the storage is gone: at 1 % bad, the chance of it is 1e-64."""

Fault = tuple[int, str]
"""An image's index, and a sentence that names the image and says what is wrong."""


class DataError(CoviewError):
    """The data can no longer be used for training or evaluation."""


class BadImageError(DataError):
    """An image cannot be read; the message names it."""


class BadImages:
    """The images of one split that turned out to be unreadable."""

    def __init__(
        self, policy: str = "skip", known: Iterable[Fault] = (), limit: float = SHARE
    ) -> None:
        """Start with the faults that are already known.

        Args:
            policy: ``"skip"``: other images stand in, up to the limit; ``"stop"``: the
                first bad image is an error.
            known: faults found earlier, which are not an error here.
            limit: a share of the split, or from 1 on a number.
        """
        self.policy, self.limit = policy, limit
        self.faults: dict[int, str] = dict(known)
        self._above: tuple[BadImages, list[int], int] | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.faults)

    def add(self, faults: Iterable[Fault], count: int) -> None:
        """Record faults; those already known are allowed.

        Args:
            faults: as :func:`read` returns them.
            count: number of images in the split.

        Raises:
            DataError: the policy is to stop, or there are too many.
        """
        for row, sentence in faults:
            with self._lock:
                self.faults.setdefault(row, sentence)
            if self._above is not None:
                # The limit is the whole split's: a small part may happen to hold most bad images.
                whole, rows, of = self._above
                whole.add([(rows[row], sentence)], of)
            elif self.policy == "stop":
                raise BadImageError(
                    f"{sentence} (To use another image in its place: --on-bad-image skip)"
                )
            elif len(self.faults) > allowed(count, self.limit):
                most = f"{self.limit:.10g}" if self.limit >= 1 else f"{100 * self.limit:.10g}%"
                raise DataError(
                    f"{len(self.faults)} of {count} images cannot be read, more than the "
                    f"{most} allowed (--set data.bad_limit=SHARE_OR_NUMBER): {self.named()}"
                )

    def named(self, most: int = NAMED) -> str:
        """Return the sentences on the first bad images, and how many more there are."""
        first = [self.faults[row] for row in sorted(self.faults)[:most]]
        more = len(self.faults) - len(first)
        return " ".join([*first, *([f"And {more} more."] if more else [])])

    def facts(self) -> dict[str, Any]:
        """Return the number of bad images and the sentences on the first, for JSON."""
        first = [self.faults[row] for row in sorted(self.faults)[:NAMED]]
        return {"count": len(self.faults), "first": first}

    def part(self, rows: Sequence[int], count: int) -> BadImages:
        """Return the bad images among ``rows`` of a split of ``count``; new finds reach both."""
        made = BadImages(self.policy, limit=self.limit)
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


def allowed(count: int, limit: float = SHARE) -> int:
    """Return how many of ``count`` images may be bad: of a share that is not 0, at least one."""
    return int(limit) if limit >= 1 or not limit else max(1, int(count * limit))


def stand_ins(row: int, count: int, labels: Tensor | None = None) -> Iterator[int]:
    """Yield the indices of images that may replace image ``row``, in order of preference.

    Args:
        row: index of the bad image.
        count: number of images.
        labels: (count,) int64: choose among images of the same class, if there are
            any. Only for learning with labels, which would otherwise be wrong.
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
    """Return an image or its stand-in, and the faults that were met.

    Raises:
        DataError: neither the image nor many others can be read.
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
    others = len(dict(faults)) - 1  # in a small set the same ones are tried again and again
    raise DataError(
        f"{faults[0][1]} {others} other images that were tried in its place cannot be read either. "
        "Are the data still there?"
    )


@attrs.frozen(eq=False)
class Readable(Dataset[Any]):
    """Images with their faults: indexing calls :func:`read`."""

    images: Any
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, list[Fault]]:
        return read(self.images, row, self.labels)


def stacked(items: list[tuple[Tensor, list[Fault]]]) -> tuple[Tensor, list[Fault]]:
    """Return items of :class:`Readable` as one batch, and all their faults."""
    return torch.stack([image for image, _ in items]), [f for _, faults in items for f in faults]
