"""Decoding a data set once, into the folder that :mod:`coview.data.packed` reads.

Images are appended, never mapped, so that a full disk is an error and not a
crash. All is written into a hidden folder beside the one that was asked for,
which takes that one's name at the end: a pack is whole or not there. One that
was interrupted is gone on with where it was last flushed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from coview.data.base import ImageData, Split
from coview.data.packed import ABOUT, FORMAT, SPLITS
from coview.data.partial import PROGRESS, Told, Work
from coview.errors import CoviewError, RequestError
from coview.files import unwritable, write_json


def pack(data: ImageData, out: Path, workers: int = 0, told: Told = lambda count: None) -> None:
    """Write a data set's images, labels, names and splits.

    Args:
        data: decoded when asked, at the size to be packed.
        out: a folder that is not there, or empty.
        workers: processes that decode.
        told: is called with the number of images done since the last call.

    Raises:
        RequestError: ``out`` is taken, or the data are no images.
        CoviewError: the disk is full, or too many images cannot be read.
    """
    if data.train.images[_first_good(data.train)].dtype != torch.uint8:
        raise RequestError(f"{data.name} holds signals; what is packed are images.")
    refuse_taken(out)
    about = _about(data)
    partial = out.with_name(f".{out.name}.partial")
    try:
        work = Work.begin(partial, about)
        _refuse_full(work, data, out)
        for name, split in splits_of(data).items():
            work.add(name, split, workers, told)
        for name, split in splits_of(data).items():
            about["splits"][name]["bad"] = {str(r): s for r, s in split.bad.faults.items()}
        (partial / PROGRESS).unlink()
        write_json(partial / ABOUT, about)
        partial.rename(out)
    except OSError as error:
        raise unwritable(out, error) from error


def refuse_taken(out: Path) -> None:
    """Refuse a place where something is.

    Raises:
        RequestError: there is.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise RequestError(f"{out} is there already: choose another --out, or delete it.")


def splits_of(data: ImageData) -> dict[str, Split]:
    """Return the splits that there are, by name."""
    found = {"train": data.train, "test": data.test, "reference": data.reference}
    if data.reference is data.train:
        del found["reference"]
    return {name: split for name in SPLITS if (split := found.get(name)) is not None}


def _first_good(split: Split) -> int:
    return next(row for row in range(len(split)) if row not in split.bad.faults)


def _about(data: ImageData) -> dict[str, Any]:
    return {
        "coview_pack": FORMAT,
        "of": data.name,
        "size": data.size,
        "channels": data.channels,
        "mean": list(data.mean),
        "std": list(data.std),
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "notes": [note for note in data.notes if "cannot be read" not in note],
        "splits": {
            name: {
                "count": len(split),
                "labels": split.labels is not None,
                "names": split.names is not None,
                "rows": split.rows is not None,
            }
            for name, split in splits_of(data).items()
        },
    }


def _refuse_full(work: Work, data: ImageData, out: Path) -> None:
    images = sum(map(len, splits_of(data).values())) - sum(work.done.values())
    needed, free = images * work.each, shutil.disk_usage(work.folder).free
    if needed > free:
        raise CoviewError(
            f"{out} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free there."
        )
