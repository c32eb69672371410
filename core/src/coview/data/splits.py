"""Splits: images held out for testing, and subsets that keep their labels (1 %, 5 per class)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from coview.data.bad_images import read
from coview.data.base import Split
from coview.errors import RequestError

HOLDOUT_SEED = 0
"""Fixed, so that all runs on one data set are evaluated on the same images."""
SAMPLED = 2000
"""Largest number of images that channel statistics are computed from."""


def hold_out(count: int, labels: Tensor | None, share: float) -> tuple[Tensor, Tensor]:
    """Split a data set of ``count`` images; the same arguments give the same split.

    Every class gives its share to within one image, and keeps at least one for
    training. Without labels all images count as one class.

    Args:
        count: number of images.
        labels: (count,) int64, or None.
        share: share of the images to hold out, from 0 (none) to below 1.

    Returns:
        Ascending indices of the training images and of the held-out images; the
        latter are empty only if no class has two images.
    """
    classes = np.zeros(count, dtype=np.int64) if labels is None else labels.numpy()
    # NumPy promises never to change the stream of RandomState; torch does not.
    shuffled = np.random.RandomState(HOLDOUT_SEED).permutation(count)
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    wanted = min(max(round(count * share), 1), count - 1) if share else 0
    # Evenly spaced positions in a list sorted by class are a stratified sample.
    places = ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(np.int64)
    held = np.zeros(count, dtype=bool)
    held[by_class[places]] = True
    _, starts, sizes = np.unique(classes[by_class], return_index=True, return_counts=True)
    taken = np.add.reduceat(held[by_class].astype(np.int64), starts)
    held[by_class[starts[taken == sizes]]] = False
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def strata(truth: Tensor) -> Tensor:
    """Return one class for each image, (N,) int64, by which images are shared out.

    Args:
        truth: (N,) int64, returned as it is; or (N, C) bool: each image counts as of the
            rarest of its classes, or as of class C if it has none.
    """
    if truth.ndim == 1:
        return truth
    sizes = torch.where(truth, truth.sum(dim=0), len(truth) + 1)
    return torch.where(truth.any(dim=1), sizes.argmin(dim=1), truth.shape[1])


def class_sizes(truth: Tensor, classes: int = 0) -> Tensor:
    """Return the number of images of each class, (C,) int64.

    Args:
        truth: (N,) int64, -1 where the class is not known; or (N, C) bool.
        classes: C; of (N,) at least as many are returned as it has classes.
    """
    if truth.ndim == 2:
        return truth.sum(dim=0)
    return torch.bincount(truth + 1, minlength=classes + 1)[1:]


def part(split: Split, rows: Tensor) -> Split:
    """Return the images of ``split`` at ``rows``, (n,) int64, with their labels and names."""
    images = split.images
    return attrs.evolve(
        split,
        images=images[rows] if isinstance(images, Tensor) else Subset(images, rows.tolist()),
        labels=None if split.labels is None else split.labels[rows],
        multi_hot=None if split.multi_hot is None else split.multi_hot[rows],
        names=None if split.names is None else tuple(split.names[row] for row in rows.tolist()),
        rows=rows,
        fields={name: _at(values, rows) for name, values in split.fields.items()},
        whole=None if split.whole is None else Subset(split.whole, rows.tolist()),
        bad=split.bad.part(rows.tolist(), len(split)),
    )


def _at(values: Tensor | Sequence[Any], rows: Tensor) -> Tensor | Sequence[Any]:
    return values[rows] if isinstance(values, Tensor) else [values[row] for row in rows.tolist()]


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return up to ``most`` indices below ``count``, from the first to the last."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel in [0, 1], from a sample.

    A constant channel gets a standard deviation of 1, so that dividing by it is safe.
    """
    # A histogram of the 256 values is exact and needs no float copy of the images. NumPy's is
    # 100 times as fast as torch's, whose threads wait for one another.
    counts = np.zeros(())
    for row in evenly_spaced(len(split), SAMPLED):
        image, faults = read(split.images, row)
        split.bad.add(faults, len(split))
        channels = image.flatten(1).numpy()
        counts = counts + np.stack([np.bincount(channel, minlength=256) for channel in channels])
    weights = counts / counts.sum(1, keepdims=True)
    values = np.arange(256) / 255
    mean = weights @ values
    deviation = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.where(deviation < 1e-6, 1.0, deviation).tolist())


def digest(*parts: Tensor | str | None) -> str:
    """Return a fingerprint (blake2b, 32 hexadecimal digits) of tensors and texts."""
    hasher = hashlib.blake2b(digest_size=16)
    for item in parts:
        if isinstance(item, Tensor):
            hasher.update(f"{tuple(item.shape)}".encode())
            hasher.update(item.contiguous().numpy().data)
        else:
            # File names may hold bytes that are not UTF-8.
            hasher.update(os.fsencode(f"{item}\0"))
    return hasher.hexdigest()


def digest_of_fields(fields: Mapping[str, Tensor | Sequence[Any]]) -> str:
    """Return a fingerprint of what images have beside labels (:attr:`Split.fields`)."""
    parts: list[Tensor | str] = []
    for name in sorted(fields):
        values = fields[name]
        texts = values if isinstance(values, Tensor) else "\0".join(map(str, values))
        parts += [name, texts]
    return digest(*parts)


def labelled_subset(labels: Tensor, wanted: str, seed: int) -> Tensor:
    """Return ascending indices (n,) of the images that keep their labels.

    Every class keeps its share, rounded, and at least one image. The same
    labels, request and seed give the same images, and a larger share of the
    same seed includes a smaller one.

    Args:
        labels: (N,) int64.
        wanted: ``"1%"`` (any share), or ``"5-per-class"`` (any number; a
            smaller class keeps all its labels).
        seed: seed of the choice.

    Raises:
        RequestError: ``wanted`` is neither.
    """
    share, number = _parse(wanted)
    # NumPy promises never to change the stream of RandomState; torch does not.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    classes = labels.numpy()[shuffled]
    kept = []
    for label in np.unique(classes):
        members = shuffled[classes == label]
        count = number if number is not None else max(1, round(share * len(members)))
        kept.append(members[:count])
    return torch.from_numpy(np.sort(np.concatenate(kept)))


def _parse(wanted: str) -> tuple[float, int | None]:
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)%", wanted):
        share = float(found[1]) / 100
        if 0 < share <= 1:
            return share, None
    if (found := re.fullmatch(r"(\d+)-per-class", wanted)) and int(found[1]) > 0:
        return 1.0, int(found[1])
    raise RequestError(
        f"--labels must be a share above 0 % and up to 100 %, like 1%, or a number like "
        f"5-per-class, not {wanted!r}."
    )
