"""Promises of a data set."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from coview.components import IMAGES
from coview.data.base import Split
from coview.testing.errors import NotTried, demand
from coview.testing.evidence import different, told
from coview.testing.source import SourceSubject, read, sampled, splits

ABOUT = 2
"""How far ``count`` may be from the number of images: twice as many, or half."""


def opens(subject: SourceSubject) -> str:
    """The data set says its size before it is loaded, and has images to train on.

    The preset and the network of a run follow from that size, so it is a whole number of pixels
    (or samples of a signal).
    """
    native = subject.source.native_size()
    demand(
        type(native) is int and native > 0, f"native_size() is {native!r}, not a number of pixels"
    )
    counts = [f"{len(split)} in {name}" for name, split in splits(subject.loaded)]
    demand(len(subject.loaded.train) > 0, "there are no images to train on")
    return ", ".join(counts)


def gives_images_as_it_says(subject: SourceSubject) -> str:
    """Every image is uint8 (C, S, S), with the channels and the size that the data set tells.

    Views and networks are built for these before the first image is read. Signals are float (C, T).
    """
    data, kind = subject.loaded, subject.declared("gives")
    told_shape = (data.channels, data.size, data.size)
    shape = told_shape if kind == IMAGES else told_shape[:2]
    for name, split in splits(data):
        for index in sampled(split):
            image = read(split, index)
            where = f"image {index} of {name}" if kind == IMAGES else f"item {index} of {name}"
            seen = tuple(image.shape)
            demand(seen == shape, f"{where} is {seen}, but the data set says {shape}")
            right = image.dtype == torch.uint8 if kind == IMAGES else image.is_floating_point()
            wanted = "uint8" if kind == IMAGES else "floating point"
            demand(right, f"{where} is {image.dtype}, not {wanted}")
            demand(bool(image.isfinite().all()), f"{where} has values that are not finite")
    return f"{data.channels} channels of {data.size} pixels"


def keeps_its_count(subject: SourceSubject) -> None:
    """Loaded again, each split has as many images, and ``count`` is about right where it is told.

    Epochs, schedules and the places of a resumed run follow from the count.
    """
    again = dict(splits(subject.again))
    for name, split in splits(subject.loaded):
        seen = len(again[name]) if name in again else 0
        demand(
            seen == len(split),
            f"{name} has {len(split)} images, and {seen} when it is loaded again",
        )
    said, count = subject.declared("count")(), len(subject.loaded.train)
    near = said is None or count / ABOUT <= said <= count * ABOUT
    demand(near, f"count() says {said} images to train on, but there are {count}")


def labels_are_in_range(subject: SourceSubject) -> str:
    """Labels are int64 from 0 on, one for each image, and each is one of the classes.

    Where images may have several classes, ``multi_hot`` is bool, a column for each class.
    """
    classes, found = len(subject.loaded.classes), 0
    for name, split in splits(subject.loaded):
        if split.multi_hot is not None:
            wanted = (len(split), classes)
            _demand_tensor(f"multi_hot of {name}", split.multi_hot, wanted, torch.bool)
        if split.labels is not None:
            _demand_tensor(f"labels of {name}", split.labels, (len(split),), torch.int64)
            wrong = (split.labels < 0) | (split.labels >= classes)
            demand(
                not bool(wrong.any()),
                f"labels of {name} must be from 0 to {classes - 1}, as there are {classes} classes",
                partial(_first, split.labels, wrong),
            )
        found += split.truth is not None
    if not found:
        raise NotTried("it has no labels")
    return f"{classes} classes"


def reads_the_same_again(subject: SourceSubject) -> None:
    """An image is the same whenever it is read, and when the data are loaded again.

    So are labels, names, fields and the fingerprint: a resumed run trains on what it had.
    """
    again = dict(splits(subject.again))
    for name, split in splits(subject.loaded):
        other = again[name]
        for index in sampled(split):
            place, first = f"image {index} of {name}", read(split, index).clone()
            for when, second in (("again", read(split, index)), ("anew", read(other, index))):
                found = next(different(first, second, place), None)
                demand(
                    found is None,
                    f"{place} differs when it is "
                    + ("read again" if when == "again" else "loaded anew"),
                    partial(told, found, "first", "then"),
                )
        found = next(different(_beside(split), _beside(other), name), None)
        demand(
            found is None,
            f"{found and found[0]} differ when the data are loaded anew",
            partial(told, found, "first", "then"),
        )
    prints = subject.loaded.fingerprint, subject.again.fingerprint
    demand(prints[0] == prints[1], f"the fingerprint is {prints[0]}, and then {prints[1]}")


def keeps_its_splits_apart(subject: SourceSubject) -> str:
    """No image is trained on and tested on, as far as names or places tell.

    An accuracy on images that were trained on is none.
    """
    train, test = subject.loaded.train, subject.loaded.test
    if test is None:
        raise NotTried("it has no test images")
    for what, ours, theirs in (
        ("names", train.names, test.names),
        ("rows", _listed(train.rows), _listed(test.rows)),
    ):
        if ours is not None and theirs is not None:
            both = sorted(str(one) for one in {*ours} & {*theirs})
            demand(
                not both,
                f"{len(both)} images are in both train and test",
                partial("{} in both: {}".format, what, ", ".join(both[:3])),
            )
            return f"by {what}"
    raise NotTried("its images have neither names nor rows of a common set to tell them by")


def has_its_fields_as_declared(subject: SourceSubject) -> str:
    """Every field has a value for each image, and is one of those that the source declares.

    A method that asks for a missing field is refused with the names of data sets that have it,
    which are told by the declaration (``fields``).
    """
    declared = subject.declared("fields")
    names = all(name.isidentifier() for name in declared)  # else in words: "any column"
    seen: set[str] = set()
    for name, split in splits(subject.loaded):
        given = dict(split.fields) | ({"labels": split.truth} if split.truth is not None else {})
        for field, values in given.items():
            count = len(values)
            demand(
                count == len(split),
                f"field {field!r} of {name} has {count} values for {len(split)} images",
            )
            demand(
                field in declared or not names,
                f"{name} has a field {field!r} that is not declared: fields = {tuple(declared)!r}",
            )
        seen |= given.keys()
    return f"fields: {', '.join(sorted(seen)) or 'none'}"


def _demand_tensor(what: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    right = tuple(value.shape) == shape and value.dtype == dtype
    demand(right, f"{what} must be {shape} {dtype}, not {tuple(value.shape)} {value.dtype}")


def _first(labels: Tensor, wrong: Tensor) -> str:
    index = int(wrong.nonzero()[0])
    return (
        f"the label of image {index} is {int(labels[index])}; {int(wrong.sum())} are out of range"
    )


def _beside(split: Split) -> dict[str, object]:
    """Return what a split has beside images."""
    fields = {f"field {name}": values for name, values in split.fields.items()}
    return {"labels": split.truth, "names": split.names, "rows": split.rows, **fields}


def _listed(rows: Tensor | None) -> list[int] | None:
    return None if rows is None else [int(row) for row in rows]
