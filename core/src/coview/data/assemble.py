"""Turning what a source read into :class:`ImageData`: one size, splits, channel statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from coview.data.bad_images import BadImages
from coview.data.base import SMALL_IMAGE, DataSettings, ImageData, Split
from coview.data.decode import Fitted, decode_all, fit_all
from coview.data.doubts import alike, too_small
from coview.data.splits import hold_out, part, statistics, strata
from coview.data.values import Reading
from coview.data.whole import Buffer, at_own_size, mean_pixels
from coview.recipes.tables import DEFAULT_SIZE

SQUARES = (
    "Crops are cut from squares (data.fit): this data set does not give images at their own sizes."
)
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, in [0, 1]."""


def common_size(sides: Iterable[int]) -> int:
    """Return the side length that all images share if it is small, else the default size."""
    found = set(sides)
    side = found.pop() if len(found) == 1 else DEFAULT_SIZE
    return side if side <= SMALL_IMAGE else DEFAULT_SIZE


def delivered_size(settings: DataSettings, native: int) -> int:
    """Return the size in pixels that the loader delivers for images of ``native`` pixels."""
    return settings.delivered_size(native)


def fits(settings: DataSettings, count: int, channels: int, size: int) -> bool:
    """Return whether ``count`` images may be kept in memory, and are small enough."""
    return settings.cache != "off" and count * channels * size**2 <= settings.resident_mib << 20


def assemble(
    name: str,
    train: Split,
    test: Split | None,
    settings: DataSettings,
    *,
    native: int,
    channels: int,
    classes: tuple[str, ...],
    fingerprint: str,
    reference: Split | None = None,
    published: Statistics | None = None,
    notes: tuple[str, ...] = (),
    workers: int = 0,
    unlabelled: Split | None = None,
    reading: Reading | None = None,
    summary: Mapping[str, Any] | None = None,
) -> ImageData:
    """Bring a data set to one size, hold out a test split if it has none, and describe it.

    Args:
        name: the data set's name as users wrote it.
        train: the training split; images (N, C, H, W) uint8 of any size, or a data
            set that gives images of the delivered size and channels.
        test: the test split, likewise; None to hold one out.
        settings: the user's settings.
        native: the stored images' pixels per side.
        channels: the stored images' number of channels.
        classes: names of the classes, by label.
        fingerprint: hash of the data.
        reference: the reference split, if it is not the training split.
        published: known statistics, used if their number of channels agrees.
        notes: sentences on what the source decided.
        workers: number of decoding threads.
        unlabelled: further images to train on, which have no labels.
        reading: how the images were read.
        summary: what the source found (:attr:`ImageData.summary`).
    """
    size, channels = delivered_size(settings, native), settings.channels or channels
    remarks = notes
    if test is None:
        train, test, note = _held_out(train, settings)
        notes = (*notes, note)
    labelled, whole = train, len(train) + (0 if test is None else len(test))
    if unlabelled is not None:
        train = _joined(train, unlabelled, whole)
    if size != native:
        said = (
            f"Images are resized to {size} pixels per side (the middle of one that is not square)."
        )
        notes = (*notes, said)
    parts = [split for split in (train, test, reference) if split is not None]
    resident = fits(settings, sum(map(len, parts)), channels, size)
    train, fit = _whole(train, settings, size, channels)
    if settings.fit == "whole" and fit == "square":
        notes = (*notes, SQUARES)
    if train.whole is not None and resident:
        left = (settings.resident_mib << 20) - sum(map(len, parts)) * channels * size**2
        kept = Buffer.read(train.whole, left, workers, _ledger(train, settings))
        resident = kept is not None
        train = attrs.evolve(train, whole=kept or train.whole)

    def ready(split: Split) -> Split:
        images, bad = split.images, _ledger(split, settings)
        if isinstance(images, Tensor):
            images = (fit_all if resident else Fitted)(images, size, channels)
        elif resident:
            images = decode_all(images, workers, bad)
        return attrs.evolve(split, images=images, bad=bad)

    train = ready(train)
    known = published if published and len(published[0]) == channels else None
    mean, std = known or statistics(train)
    test = None if test is None else ready(test)
    if reference is not None:
        reference = ready(reference)
    elif unlabelled is None or labelled.truth is None:
        reference = train
    else:
        reference = _beginning(train, labelled)
    same, small = tuple(alike(train, std)), tuple(too_small(reference, test, classes))
    notes = (*notes, *same, *small, *bad_notes((("training", train), ("test", test))))
    return ImageData(
        name=name,
        train=train,
        test=test,
        reference=reference,
        classes=classes,
        channels=channels,
        size=size,
        mean=mean,
        std=std,
        fingerprint=fingerprint,
        notes=notes,
        reading=(reading or Reading.of(settings)).plain(),
        summary=summary or {},
        remarks=(*remarks, *same),
        fit=fit,
        mean_pixels=0.0 if train.whole is None else mean_pixels(train.whole),
    )


def _ledger(split: Split, settings: DataSettings) -> BadImages:
    return BadImages(settings.on_bad_image, split.bad.faults.items(), settings.bad_limit)


def _whole(split: Split, settings: DataSettings, size: int, channels: int) -> tuple[Split, str]:
    """Return the training images with those at their own sizes, if they are asked for.

    Also returns what crops will be cut from: see :attr:`ImageData.fit`.
    """
    if settings.fit != "whole":
        return attrs.evolve(split, whole=None), "square"
    if split.whole is not None:
        return split, "whole"
    if isinstance(split.images, Tensor) and split.images.shape[-2:] == (size, size):
        return split, "whole"  # all of that size: they need no buffer
    side = settings.whole_side or DEFAULT_SIZE
    whole = at_own_size(split.images, side, channels)
    return attrs.evolve(split, whole=whole), "square" if whole is None else "whole"


def bad_notes(splits: Iterable[tuple[str, Split | None]]) -> Iterator[str]:
    """Yield a sentence for each split that is known to have unreadable images."""
    for kind, split in splits:
        if split is not None and len(split.bad):
            yield (
                f"{len(split.bad)} of {len(split)} {kind} images cannot be read; other images "
                f"take their place. {split.bad.named()}"
            )


def _held_out(split: Split, settings: DataSettings) -> tuple[Split, Split | None, str]:
    share = settings.held_out(split.truth is not None)
    if not share:
        why = "data.holdout = 0" if settings.holdout == 0 else "there are no labels to measure with"
        return split, None, f"No images are held out for testing: {why}."
    classes = None if split.truth is None else strata(split.truth)
    kept, held = hold_out(len(split), classes, share)
    if not len(held):
        return split, None, "No images are held out for testing: there are too few."
    how = "fixed" if split.truth is None else "fixed, stratified"
    note = (
        f"{len(held)} of {len(split)} images are held out for testing ({how}). Which ones follows "
        "from the images' order."
    )
    return part(split, kept), part(split, held), note


def _joined(split: Split, more: Split, whole: int) -> Split:
    """Return a split and further images, without labels; ``whole`` rows come before those."""
    rows = torch.arange(len(split)) if split.rows is None else split.rows
    return Split(
        ConcatDataset([split.images, more.images]),  # type: ignore[list-item]
        names=None if split.names is None else (*split.names, *(more.names or ())),
        rows=torch.cat([rows, torch.arange(whole, whole + len(more))]),
        fields={
            name: _both(values, more.fields[name])
            for name, values in split.fields.items()
            if name in more.fields
        },
    )


def _both(first: Any, second: Any) -> Any:
    whole = isinstance(first, Tensor) and isinstance(second, Tensor)
    return torch.cat([first, second]) if whole else [*first, *second]


def _beginning(train: Split, labelled: Split) -> Split:
    """Return the images with labels, the first of all that are trained on, without a copy."""
    count, images = len(labelled), train.images
    first = images[:count] if isinstance(images, Tensor) else Subset(images, range(count))
    return attrs.evolve(labelled, images=first, bad=train.bad.part(range(count), len(train)))
