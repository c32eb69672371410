"""The positions of images in a shard, read from the tar file once and then from a cache."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import attrs
import numpy as np
from webdataset.autodecode import basichandlers
from webdataset.tariterators import group_by_keys

from coview.caches import own_folder
from coview.errors import CoviewError, RequestError
from coview.files import replacing

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
"""If a sample has several images, the first in this order is used."""
LABELS = ("cls", "label", "class")
"""Keys under which a label is looked for in a sample's ``json``."""
META = re.compile(r"__[^/]*__($|/)")
"""Members to leave out, as the library does."""
VERSION = 1


@attrs.frozen(eq=False)
class Index:
    """The images of one shard.

    Attributes:
        names: KEY.EXTENSION each.
        places: (N, 2) int64: each image's first byte in the shard, and its length.
        labels: each image's label as text; empty if it has none.
    """

    names: tuple[str, ...]
    places: np.ndarray[Any, Any]
    labels: tuple[str, ...]


def index_of(shard: Path) -> Index:
    """Return a shard's index, from the cache if the shard has not changed.

    Raises:
        RequestError: the shard is not an uncompressed tar file.
        CoviewError: the shard is truncated or cannot be read.
    """
    try:
        status = shard.stat()
    except OSError as error:
        raise CoviewError(f"The shard {shard} cannot be read: {error.strerror}.") from error
    about = f"{VERSION} {shard.resolve()} {status.st_size} {status.st_mtime_ns}"
    key = hashlib.blake2b(os.fsencode(about), digest_size=16).hexdigest()
    try:
        cached = own_folder("webdataset") / f"{key}.npz"
    except CoviewError:  # without a cache the shard is read again next time
        return _read(shard)
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile):
        return _load(cached)
    index = _read(shard)
    with suppress(CoviewError):
        _save(cached, index)
    return index


def _read(shard: Path) -> Index:
    names, places, labels = [], [], []
    try:
        with tarfile.open(shard, "r:") as opened:
            for sample in group_by_keys(_members(opened, str(shard))):
                kind = next((kind for kind in IMAGES if kind in sample), None)
                if kind is None:
                    continue
                names.append(f"{sample['__key__']}.{kind}")
                places.append((sample[kind].offset_data, sample[kind].size))
                labels.append(_label(opened, sample))
    except tarfile.ReadError as error:
        if not names:
            raise RequestError(
                f"{shard} is not an uncompressed tar file ({error}). Decompress it first: images "
                "are read directly from their place in the file."
            ) from error
        raise CoviewError(f"The shard {shard} ends early, after {names[-1]}: {error}.") from error
    except (OSError, ValueError, tarfile.TarError) as error:
        raise CoviewError(f"The shard {shard} cannot be read: {error}.") from error
    return Index(tuple(names), np.array(places, np.int64).reshape(-1, 2), tuple(labels))


def _members(opened: tarfile.TarFile, shard: str) -> Iterator[dict[str, Any]]:
    for member in opened:
        if member.isreg() and not META.match(member.name):
            yield {"fname": member.name, "data": member, "__url__": shard}


def _label(opened: tarfile.TarFile, sample: dict[str, Any]) -> str:
    for kind in ("cls", "json"):
        if kind not in sample:
            continue
        file = opened.extractfile(sample[kind])
        assert file is not None
        try:
            found = basichandlers(kind, file.read())
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{sample['__key__']}.{kind} is not a label ({error})") from error
        if isinstance(found, dict):
            found = next((found[name] for name in LABELS if name in found), None)
        if found is not None:
            return str(found)
    return ""


def _save(file: Path, index: Index) -> None:
    texts = {
        name: np.frombuffer(b"".join(os.fsencode(t) + b"\0" for t in values), np.uint8)
        for name, values in (("names", index.names), ("labels", index.labels))
    }
    with replacing(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, places=index.places, **texts)


def _load(file: Path) -> Index:
    with file.open("rb") as opened, np.load(opened) as found:
        names, labels = (
            tuple(os.fsdecode(text) for text in found[name].tobytes().split(b"\0")[:-1])
            for name in ("names", "labels")
        )
        return Index(names, found["places"], labels)
