"""The positions of images in a shard, read from the tar file once and then from a cache."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import attrs
import numpy as np
from webdataset.autodecode import basichandlers
from webdataset.tariterators import group_by_keys

from coview.caches import own_folder
from coview.data.bands import ARRAYS
from coview.data.pillow import is_image
from coview.errors import CoviewError, RequestError
from coview.files import replacing

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
"""If a sample has several images, the first in this order is used, else the first of any kind."""
LABELS = ("cls", "label", "class", "labels", "classes")
"""Keys under which a label is looked for in a sample's ``json``."""
META = re.compile(r"__[^/]*__($|/)")
"""Members to leave out, as the library does."""
VERSION = 4
FURTHER = "further "
"""Begins, among ``others``, the kind of an image whose sample has another one."""
MOST_BYTES = 1 << 20
"""Longest label: a member of a crafted shard may promise gigabytes."""


@attrs.frozen(eq=False)
class Index:
    """The images of one shard.

    Attributes:
        names: KEY.EXTENSION each.
        places: (N, 2) int64: each image's first byte in the shard, and its length.
        labels: each image's label as text, ``['a', 'b']`` of several; empty if it has none.
        others: what the samples without an image have instead, as ``a+b`` each; and the
            images of samples that have more than one, as ``further KIND`` each.
        lost: what was lost if the shard ends early, in words; else empty.
    """

    names: tuple[str, ...]
    places: np.ndarray[Any, Any]
    labels: tuple[str, ...]
    others: tuple[str, ...] = ()
    lost: str = ""


def index_of(shard: Path) -> Index:
    """Return a shard's index, from the cache if the shard has not changed.

    Raises:
        RequestError: the shard is not an uncompressed tar file.
        CoviewError: the shard cannot be read.
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
    found: list[tuple[str, tuple[int, int], str]] = []
    others: list[str] = []
    lost: list[str] = []
    imageless = False
    try:
        with tarfile.open(shard, "r:") as opened:
            whole = group_by_keys(_members(opened, str(shard), lost))
            for sample in chain.from_iterable(map(_parted, whole)):
                kind = _image_of(sample)
                imageless = kind is None
                if kind is None:
                    others.append("+".join(k for k in sample if not k.startswith("__")))
                    continue
                place = (sample[kind].offset_data, sample[kind].size)
                label = _label(opened, sample, kind, lost)
                found.append((f"{sample['__key__']}.{kind}", place, label))
                further = (other for other in sample if _is_image(other) and other != kind)
                others += [f"{FURTHER}{other.rpartition('.')[2]}" for other in further]
    except tarfile.ReadError as error:
        raise RequestError(
            f"{shard} is not an uncompressed tar file ({error}). Decompress it first: images "
            "are read directly from their place in the file."
        ) from error
    except (OSError, ValueError, tarfile.TarError) as error:
        raise CoviewError(f"The shard {shard} cannot be read: {error}.") from error
    if not lost and not _ended(shard):
        lost.append("it has no end mark")
    said = ""
    if lost:
        last = found[-1][0] if found else "its beginning"
        said = f"The shard {shard} ends early, after {last}: {lost[0]}. What followed is lost."
        if found and not found[-1][2] and any(label for _, _, label in found):
            found.pop()  # its label is among what was lost
        others = others[:-1] if imageless else others
    names, places, labels = zip(*found, strict=True) if found else ((), (), ())
    return Index(names, np.array(places, np.int64).reshape(-1, 2), labels, tuple(others), said)


def _parted(sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a sample, or those that a dot in their names made one: 1.05.png and 1.06.png.

    WebDataset takes what follows the first dot for the kind. Samples are told apart by
    the rest of the name if every image has a label of its own.
    """
    images = {_stem(kind) for kind in sample if _is_image(kind)}
    if len(images) < 2 or not images <= {_stem(kind) for kind in sample if _is_label(kind)}:
        yield sample
        return
    for stem in sorted(images):
        yield {k: v for k, v in sample.items() if k.startswith("__") or _stem(k) == stem}


def _stem(kind: str) -> str:
    return kind.rpartition(".")[0]


def _is_label(kind: str) -> bool:
    return kind.rpartition(".")[2] in ("cls", "json")


def _image_of(sample: dict[str, Any]) -> str | None:
    usual = next((kind for kind in IMAGES if kind in sample), None)
    if usual is not None:
        return usual
    # ``input.jpg``, or a format that few people keep in shards.
    return next((kind for kind in sample if _is_image(kind)), None)


def _is_image(kind: str) -> bool:
    ending = f".{kind.rpartition('.')[2].lower()}"
    return not kind.startswith("__") and (ending in ARRAYS or is_image(ending))


def _ended(shard: Path) -> bool:
    """Return whether a shard has the two blocks of zeros that end a tar file."""
    with shard.open("rb") as file:
        file.seek(max(0, shard.stat().st_size - 1024))
        return not any(file.read())


def _members(opened: tarfile.TarFile, shard: str, lost: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the files of a shard; if it ends early, say so in ``lost``."""
    try:
        for member in opened:
            if member.isreg() and not META.match(member.name):
                yield {"fname": member.name, "data": member, "__url__": shard}
    except tarfile.ReadError as error:
        lost.append(str(error))


def _label(opened: tarfile.TarFile, sample: dict[str, Any], image: str, lost: list[str]) -> str:
    stem = f"{_stem(image)}." if _stem(image) else ""
    for kind in dict.fromkeys((f"{stem}cls", f"{stem}json", "cls", "json")):
        if kind not in sample:
            continue
        if sample[kind].size > MOST_BYTES:
            raise ValueError(
                f"{sample['__key__']}.{kind} has {sample[kind].size} bytes, more than the "
                f"{MOST_BYTES} of a label"
            )
        file = opened.extractfile(sample[kind])
        assert file is not None
        try:
            found = basichandlers(kind.rpartition(".")[2], file.read())
        except tarfile.ReadError as error:
            lost.append(str(error))
            return ""
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{sample['__key__']}.{kind} is not a label ({error})") from error
        if isinstance(found, dict):
            found = next((found[name] for name in LABELS if name in found), None)
        if found is not None:
            return str(found)
    return ""


def _texts(index: Index) -> dict[str, tuple[str, ...]]:
    lost = (index.lost,) if index.lost else ()
    return {"names": index.names, "labels": index.labels, "others": index.others, "lost": lost}


def _save(file: Path, index: Index) -> None:
    texts = {
        name: np.frombuffer(b"".join(os.fsencode(t) + b"\0" for t in values), np.uint8)
        for name, values in _texts(index).items()
    }
    with replacing(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, places=index.places, **texts)


def _load(file: Path) -> Index:
    with file.open("rb") as opened, np.load(opened) as found:
        texts = {
            name: tuple(os.fsdecode(text) for text in found[name].tobytes().split(b"\0")[:-1])
            for name in ("names", "labels", "others", "lost")
        }
        texts["lost"] = "".join(texts["lost"])  # type: ignore[assignment]
        return Index(places=found["places"], **texts)
