"""A pack that is being written, flushed now and then so that it can be gone on with."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
import torch
from torch import Tensor

from coview.data.base import Split
from coview.data.reading import read_batches
from coview.files import write_json

BATCH = 64
FLUSHED = 64 << 20
"""Bytes after which what was written is flushed, and counts when a pack is gone on with."""
PROGRESS = "progress.json"

Told = Callable[[int], Any]


@attrs.define(eq=False)
class Work:
    """A pack that is being written.

    Attributes:
        folder: hidden, beside the pack.
        shape: of an image.
        done: images of each split that are flushed.
        bad: by split, the faults among those.
    """

    folder: Path
    shape: tuple[int, int, int]
    done: dict[str, int]
    bad: dict[str, dict[str, str]]
    plan: dict[str, Any]

    @property
    def each(self) -> int:
        """Bytes of an image."""
        return int(np.prod(self.shape))

    @classmethod
    def begin(cls, folder: Path, plan: dict[str, Any]) -> Work:
        """Go on with what is there, if it is of the same data; else start afresh."""
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
        """Write a split, or the rest of it."""
        for kind, values in (("labels", split.labels), ("rows", split.rows)):
            if values is not None:
                np.save(self.folder / f"{name}.{kind}.npy", values.numpy())
        if split.names is not None:
            names = b"".join(os.fsencode(text) + b"\0" for text in split.names)
            (self.folder / f"{name}.names").write_bytes(names)
        known = self.bad.get(name, {})
        split.bad.add([(int(row), text) for row, text in known.items()], len(split))
        done = self.done.get(name, 0)
        told(done)
        header = _header((len(split), *self.shape))
        with (self.folder / f"{name}.images.npy").open("ab") as file:
            file.truncate(0 if not done else len(header) + done * self.each)
            if not done:
                file.write(header)
            self._append(file, name, split, done, workers, told)

    def _append(
        self, file: BinaryIO, name: str, split: Split, done: int, workers: int, told: Told
    ) -> None:
        waiting = 0
        rows = torch.split(torch.arange(done, len(split)), BATCH)
        for images in read_batches(split, rows, workers=workers) if done < len(split) else ():
            file.write(_bytes(images))
            done, waiting = done + len(images), waiting + len(images) * self.each
            if waiting >= FLUSHED:
                self._flush(file, name, split, done)
                waiting = 0
            told(len(images))
        self._flush(file, name, split, done)

    def _flush(self, file: BinaryIO, name: str, split: Split, done: int) -> None:
        file.flush()
        os.fsync(file.fileno())
        self.done[name] = done
        self.bad[name] = {str(row): text for row, text in split.bad.faults.items()}
        state = {"plan": self.plan, "done": self.done, "bad": self.bad}
        write_json(self.folder / PROGRESS, state)


def _bytes(images: Tensor) -> memoryview:
    return images.contiguous().numpy().data


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the head of a ``.npy`` file of bytes of that shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()
