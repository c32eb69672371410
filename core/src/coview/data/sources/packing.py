"""Decoding a data set once, into the folder that :mod:`coview.data.sources.pack` reads.

Images are appended, never mapped, so that a full disk is an error and not a
crash. Everything is written into a hidden folder beside the requested one and
renamed at the end, so a pack is either complete or absent. An interrupted one is
continued from its last flush.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
import torch
from torch import Tensor

from coview.data.base import ImageData, Split
from coview.data.loader import read_batches, read_whole
from coview.data.sources.pack import ABOUT, FORMAT, SPLITS
from coview.data.sources.pack_fields import write_fields
from coview.data.sources.pack_whole import appended, sizes_of
from coview.errors import CoviewError, RequestError
from coview.files import unwritable, write_json
from coview.locks import Hold

BATCH = 64
FLUSHED = 64 << 20
"""Bytes between flushes; what is flushed is not written again after an interruption."""
PROGRESS = "progress.json"

Told = Callable[[int], Any]


@attrs.define(eq=False)
class Work:
    """A pack that is being written.

    Attributes:
        folder: the hidden folder beside the pack.
        shape: shape of an image.
        done: number of images flushed, by split.
        bad: faults among those images, by split.
        plan: what is to be packed, as ``pack.json`` will describe it.
    """

    folder: Path
    shape: tuple[int, int, int]
    done: dict[str, int]
    bad: dict[str, dict[str, str]]
    plan: dict[str, Any]

    @property
    def each(self) -> int:
        """Bytes per image."""
        return int(np.prod(self.shape))

    @classmethod
    def begin(cls, folder: Path, plan: dict[str, Any]) -> Work:
        """Continue what is in ``folder`` if it is of the same data, else start afresh."""
        shape = (plan["channels"], plan["size"], plan["size"])
        try:
            found = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if found.get("plan") == json.loads(json.dumps(plan)):
            return cls(folder, shape, found["done"], found["bad"], plan)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return cls(folder, shape, {}, {}, plan)

    def add(self, name: str, split: Split, workers: int, told: Told) -> None:
        """Write a split, or what is missing of it."""
        for kind in ("labels", "multi_hot", "rows"):
            if (values := getattr(split, kind)) is not None:
                np.save(self.folder / f"{name}.{kind}.npy", values.numpy())
        if split.names is not None:
            names = b"".join(os.fsencode(text) + b"\0" for text in split.names)
            (self.folder / f"{name}.names").write_bytes(names)
        write_fields(self.folder / name, split.fields)
        known = self.bad.get(name, {})
        split.bad.add([(int(row), text) for row, text in known.items()], len(split))
        done = self.done.get(name, 0)
        told(done)
        header = _header((len(split), *self.shape))
        with (self.folder / f"{name}.images.npy").open("ab") as file:
            file.truncate(0 if not done else len(header) + done * self.each)
            if not done:
                file.write(header)
            batches = read_batches(split, _rows(split, done), workers=workers)
            pieces = ((_bytes(images),) for images in batches)
            self._append((file,), name, split, pieces, told)

    def add_whole(self, name: str, split: Split, workers: int, told: Told) -> None:
        """Write a split's images at their own sizes, or what is missing of them."""
        kind = f"{name}.whole"
        done = self.done.get(kind, 0)
        told(done)
        with appended(self.folder / name, done, self.shape[0]) as files:
            batches = read_whole(split, _rows(split, done), workers=workers)
            pieces = ((_bytes(pixels), sizes_of(extents)) for pixels, extents in batches)
            self._append(files, kind, split, pieces, told)

    def _append(
        self,
        files: Sequence[BinaryIO],
        kind: str,
        split: Split,
        batches: Iterable[Sequence[memoryview]],
        told: Told,
    ) -> None:
        """Write a piece of each batch into each file; the last one has a row for each image."""
        done, waiting = self.done.get(kind, 0), 0
        for pieces in batches:
            for file, piece in zip(files, pieces, strict=True):
                file.write(piece)
            count = len(pieces[-1])
            done, waiting = done + count, waiting + pieces[0].nbytes
            if waiting >= FLUSHED:
                self._flush(files, kind, split, done)
                waiting = 0
            told(count)
        self._flush(files, kind, split, done)

    def _flush(self, files: Sequence[BinaryIO], name: str, split: Split, done: int) -> None:
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        self.done[name] = done
        self.bad[name] = {str(row): text for row, text in split.bad.faults.items()}
        state = {"plan": self.plan, "done": self.done, "bad": self.bad}
        write_json(self.folder / PROGRESS, state)


def _rows(split: Split, done: int) -> list[Tensor]:
    """Return the rows that are missing, batch by batch."""
    return [rows for rows in torch.arange(done, len(split)).split(BATCH) if len(rows)]


def _bytes(images: Tensor) -> memoryview:
    return images.contiguous().numpy().data


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the header of a uint8 ``.npy`` file of that shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def pack(
    data: ImageData,
    out: Path,
    workers: int = 0,
    told: Told = lambda count: None,
    whole_side: int | None = None,
) -> None:
    """Write a data set's images, labels, names, fields and splits.

    Args:
        data: the data set, at the size to pack; decoded on demand.
        out: a folder that does not exist or is empty.
        workers: number of decoding processes.
        told: called with the number of images done since the last call.
        whole_side: ``data.whole_side`` that the data were loaded with, if their training
            images are to be kept at their own sizes too (``data.fit = "whole"``).

    Raises:
        RequestError: ``out`` is taken, another process is packing into it, or the data are
            not images.
        CoviewError: the disk is full, or too many images cannot be read.
    """
    if data.train.images[_first_good(data.train)].dtype != torch.uint8:
        raise RequestError(f"{data.name} contains signals; only images can be packed.")
    about = _about(data, whole_side)
    partial = out.with_name(f".{out.name}.partial")
    busy = f"Another process is packing into {out}. Wait until it has ended."
    with Hold(out.with_name(f".{out.name}.lock"), busy):
        # Only now: the other process may just have finished.
        refuse_taken(out)
        _write(data, about, partial, out, workers, told)


def _write(
    data: ImageData, about: dict[str, Any], partial: Path, out: Path, workers: int, told: Told
) -> None:
    try:
        work = Work.begin(partial, about)
        _refuse_full(work, data, out)
        for name, split in splits_of(data).items():
            work.add(name, split, workers, told)
            if split.whole is not None:
                work.add_whole(name, split, workers, told)
        for name, split in splits_of(data).items():
            about["splits"][name]["bad"] = {str(r): s for r, s in split.bad.faults.items()}
        (partial / PROGRESS).unlink()
        write_json(partial / ABOUT, about)
        partial.rename(out)
    except OSError as error:
        raise unwritable(out, error) from error


def refuse_taken(out: Path) -> None:
    """Refuse a path that is a file or a folder with content.

    Raises:
        RequestError: the path is taken.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise RequestError(f"{out} already exists: choose another --out, or delete it.")


def splits_of(data: ImageData) -> dict[str, Split]:
    """Return the splits of a data set, by name."""
    found = {"train": data.train, "test": data.test, "reference": data.reference}
    if data.reference is data.train:
        del found["reference"]
    return {name: split for name in SPLITS if (split := found.get(name)) is not None}


def _first_good(split: Split) -> int:
    return next(row for row in range(len(split)) if row not in split.bad.faults)


def _about(data: ImageData, whole_side: int | None) -> dict[str, Any]:
    return {
        "coview_pack": FORMAT,
        "of": data.name,
        "size": data.size,
        "channels": data.channels,
        "mean": list(data.mean),
        "std": list(data.std),
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "whole_side": whole_side,
        "reading": dict(data.reading),
        "notes": [note for note in data.notes if "cannot be read" not in note],
        "splits": {
            name: {
                "count": len(split),
                "labels": split.labels is not None,
                "multi_hot": split.multi_hot is not None,
                "names": split.names is not None,
                "rows": split.rows is not None,
                "whole": split.whole is not None,
                "fields": bool(split.fields),
            }
            for name, split in splits_of(data).items()
        },
    }


def _refuse_full(work: Work, data: ImageData, out: Path) -> None:
    squares = {name: len(split) - work.done.get(name, 0) for name, split in splits_of(data).items()}
    needed = sum(squares.values()) * work.each
    if data.train.whole is not None:
        left = len(data.train) - work.done.get("train.whole", 0)
        needed += round(left * data.mean_pixels) * data.channels
    free = shutil.disk_usage(work.folder).free
    if needed > free:
        raise CoviewError(
            f"{out} needs {needed / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free there."
        )
