"""Embeddings of a data set as a table of arrays, and how to write it to files."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coview.data.base import ImageData, Split
from coview.errors import RequestError
from coview.evaluation.features import TEST, TRAINING, features
from coview.files import replacing

Table = dict[str, "np.ndarray[Any, Any]"]


def embed(
    network: Callable[[Tensor], Tensor],
    data: ImageData,
    which: str = "all",
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Table:
    """Return ``embeddings`` (N, D) float32, ``split`` and, if any, labels and names.

    ``labels`` are numbers, ``classes`` the names of those; images without a label
    among others with one have -1 and an empty text.

    Images are in the data set's own order, also if some of them were held out. If
    data come in splits, training images are first; images of a folder with splits
    are in the order of their names. An unreadable image has a row of NaN, so that
    all others keep their place; :func:`missing` lists these rows.

    Raises:
        RequestError: there is no such split.
    """
    splits = {"train": data.train, "test": data.test}
    chosen = [(n, s) for n, s in splits.items() if s is not None and which in (n, "all")]
    if not chosen:
        raise RequestError(
            f"{data.name} has no {which} split. --split all takes every image; for a search among "
            "them: coview evaluate retrieval --query DATA --gallery DATA."
        )
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "workers": workers}
    words = {"train": TRAINING, "test": TEST} if data.test is not None else {"train": "images"}
    parts = [
        _part(
            name,
            split,
            features(network, split, whole=True, what=words[name], **options),
            _labels(split, data),
            np.array([*data.classes, ""]),
        )
        for name, split in chosen
    ]
    columns = set.intersection(*(set(part) for part in parts))
    order = ("embeddings", "labels", "classes", "names", "split")
    table = {c: np.concatenate([part[c] for part in parts]) for c in order if c in columns}
    own_order = data_order([split for _, split in chosen])
    return {column: values[own_order] for column, values in table.items()}


def data_order(splits: Sequence[Split]) -> np.ndarray[Any, Any]:
    """Return the places (N,) of the images of splits, one after another, in the data's order."""
    rows = [split.rows.numpy() for split in splits if split.rows is not None]
    if len(rows) == len(splits):
        return np.argsort(np.concatenate(rows))
    names = [np.array(split.names) for split in splits if split.names is not None]
    if len(names) == len(splits):
        return np.argsort(np.concatenate(names), kind="stable")
    return np.arange(sum(map(len, splits)))


def missing(table: Table) -> list[int]:
    """Return the row numbers of images that could not be read."""
    rows: list[int] = np.flatnonzero(np.isnan(table["embeddings"]).any(axis=1)).tolist()
    return rows


def readable(table: Table) -> Table:
    """Return the table without the rows of images that could not be read."""
    gone = missing(table)
    return {name: np.delete(values, gone, axis=0) for name, values in table.items()}


def _labels(split: Split, data: ImageData) -> Tensor | None:
    """Return a split's labels; -1 for images without one if only some of them have labels."""
    known = data.reference
    if split.labels is not None or split is not data.train or known.labels is None:
        return split.labels
    if split.names is None or known.names is None:
        return None
    numbers = dict(zip(known.names, known.labels.tolist(), strict=True))
    return torch.tensor([numbers.get(name, -1) for name in split.names])


def _part(
    name: str,
    split: Split,
    embeddings: Tensor,
    labels: Tensor | None,
    classes: np.ndarray[Any, Any],
) -> Table:
    part: Table = {"embeddings": embeddings.numpy(), "split": np.full(len(split), name)}
    if labels is not None:
        part["labels"] = labels.numpy()
        if len(classes) > int(labels.max()) + 1:
            part["classes"] = classes[part["labels"]]
    if split.names is not None:
        part["names"] = np.array(split.names)
    return part


def write(path: Path, table: Table) -> None:
    """Write the table, atomically, in the format that the file's ending names.

    ``.npy`` and ``.safetensors`` hold numbers only: the embeddings, and in the
    latter the labels too. In ``.csv``, columns ``e0``, ``e1``, ... come last.
    """
    with replacing(path) as temporary:
        _WRITERS[path.suffix](temporary, table)


def _npy(path: Path, table: Table) -> None:
    with path.open("wb") as file:
        np.save(file, table["embeddings"])


def _npz(path: Path, table: Table) -> None:
    with path.open("wb") as file:
        np.savez(file, **table)  # type: ignore[arg-type]


def _safetensors(path: Path, table: Table) -> None:
    from safetensors.numpy import save_file

    save_file({k: v for k, v in table.items() if k in ("embeddings", "labels")}, path)


def _parquet(path: Path, table: Table) -> None:
    import pyarrow  # type: ignore[import-not-found, unused-ignore]
    import pyarrow.parquet  # type: ignore[import-not-found, unused-ignore]

    columns = {k: list(v) if v.ndim > 1 else v for k, v in table.items()}
    if "names" in columns:
        # Parquet needs UTF-8, but file names may hold any bytes.
        names = (os.fsencode(name).decode("utf-8", "backslashreplace") for name in table["names"])
        columns["names"] = list(names)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _csv(path: Path, table: Table) -> None:
    columns = [name for name in table if name != "embeddings"]
    width = table["embeddings"].shape[1]
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *(f"e{place}" for place in range(width))])
        for row, values in enumerate(table["embeddings"].tolist()):
            writer.writerow([*(table[name][row] for name in columns), *values])


_WRITERS = {
    ".csv": _csv,
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
}
