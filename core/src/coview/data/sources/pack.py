"""Data sets that ``coview pack`` decoded: memory-mapped uint8 arrays.

A pack is a folder. ``pack.json`` describes it, and each split has
``NAME.images.npy`` (N, C, S, S) and, if the data had them, ``NAME.labels.npy``,
``NAME.rows.npy``, ``NAME.names`` (bytes, each ended by a zero), what is described in
:mod:`coview.data.sources.pack_fields`, and images at their own sizes as in
:mod:`coview.data.sources.pack_whole`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.assemble import SQUARES, bad_notes, fits
from coview.data.bad_images import BadImages
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import fit, fit_all
from coview.data.sources.pack_fields import read_fields
from coview.data.sources.pack_whole import PackedWhole
from coview.data.splits import digest, statistics
from coview.data.values import recorded
from coview.data.whole import Buffer, mean_pixels
from coview.errors import CoviewError, RequestError
from coview.recipes.tables import DEFAULT_SIZE

FORMAT = 1
ABOUT = "pack.json"
SPLITS = ("train", "test", "reference")


def is_pack(path: str | Path) -> bool:
    """Return whether a folder is a finished pack of ``coview pack``."""
    return (Path(path) / ABOUT).is_file()


@attrs.frozen(eq=False, slots=False)
class Mapped(Dataset[Tensor]):
    """Memory-mapped images in a file, (C, S, S) uint8 each, read on demand.

    Pickling sends the path to another process, not the images.
    """

    path: str
    shape: tuple[int, int, int, int]

    @cached_property
    def values(self) -> Tensor:
        """All images, (N, C, S, S), memory-mapped."""
        # Copy-on-write, as torch does not accept read-only memory.
        mapped = np.load(self.path, mmap_mode="c")
        if mapped.shape != self.shape or mapped.dtype != np.uint8:
            raise ValueError(f"it holds {mapped.shape} {mapped.dtype}, not {self.shape} uint8")
        return torch.from_numpy(mapped)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "shape": self.shape}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        return self.values[index]

    def gather(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Return a copy of the images at ``rows``, (B,) int64, in ``out`` if it is given."""
        # NumPy is twice as fast as torch here: it copies row by row, and into larger pages.
        values, places = self.values.numpy(), rows.numpy()
        if out is None:
            return torch.from_numpy(values.take(places, axis=0))
        # In its default mode NumPy would write into a buffer of its own first.
        values.take(places, axis=0, out=out.numpy(), mode="clip")
        return out


@attrs.frozen(eq=False)
class Refitted(Dataset[Tensor]):
    """Mapped images, converted on demand to another size or number of channels."""

    images: Mapped
    size: int
    channels: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return fit(self.images[index], self.size, self.channels)


class Packed:
    """A folder that ``coview pack`` wrote, with the splits made at that time."""

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Read the folder's description; ``download`` has no effect."""
        if path is None:
            raise RequestError("The data set pack needs a path: write pack:DIR.")
        self.name, self.root = f"pack:{path}", Path(path)
        if not is_pack(path):
            raise RequestError(
                f"{path} is not a pack: it has no {ABOUT}. To make one: "
                f"coview pack DATA --out {path}"
            )
        self.about = _about(self.root / ABOUT)

    def native_size(self) -> int:
        """Return the packed images' pixels per side."""
        with self._undamaged():
            return int(self.about["size"])

    def count(self) -> int:
        """Return the number of images that were packed to train on."""
        count: int = self.about["splits"]["train"]["count"]
        return count

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Map the images, or read them into memory if they are small enough.

        Raises:
            CoviewError: the pack is damaged.
        """
        with self._undamaged():
            return self._load(settings)

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """Turn errors of nearly any type, as damaged numbers and headers give, into a sentence."""
        try:
            yield
        except CoviewError:
            raise
        except Exception as error:
            why = " ".join(str(error).split()) or "no reason given"
            raise CoviewError(
                f"The pack {self.root} is damaged: {type(error).__name__}: {why}."
            ) from error

    def _load(self, settings: DataSettings) -> ImageData:
        about = self.about
        size = settings.size or about["size"]
        channels = settings.channels or about["channels"]
        as_packed = (size, channels) == (about["size"], about["channels"])
        total = sum(split["count"] for split in about["splits"].values())
        resident = fits(settings, total, channels, size)
        splits = {
            name: self._split(name, settings, size, channels, resident)
            for name in SPLITS
            if name in about["splits"]
        }
        train = splits["train"]
        mean, std = tuple(about["mean"]), tuple(about["std"])
        if channels != about["channels"]:
            mean, std = statistics(train)
        notes = [*about["notes"], *bad_notes(splits.items())]
        read = recorded(about.get("reading"))
        notes += _as_packed(read, settings)
        if size != about["size"]:
            notes.append(f"Images packed at {about['size']} pixels are resized to {size}.")
        as_read, told = self._whole(splits["train"], settings, channels)
        if as_read is not None:
            left = (settings.resident_mib << 20) - total * channels * size**2
            kept = as_read if not resident or as_read.bytes > left else Buffer.read(as_read, left)
            splits["train"] = train = attrs.evolve(train, whole=kept or as_read)
        notes += told
        fingerprint = about["fingerprint"]
        as_asked = f"{size} {channels}"
        if as_read is not None and told:
            as_packed, as_asked = False, f"{as_asked} {as_read.side}"
        return ImageData(
            name=self.name,
            train=train,
            test=splits.get("test"),
            reference=splits.get("reference", train),
            classes=tuple(about["classes"]),
            channels=channels,
            size=size,
            mean=mean,
            std=std,
            # At the packed size the images equal those of the original data, bit for bit.
            fingerprint=fingerprint if as_packed else digest(fingerprint, as_asked),
            notes=tuple(notes),
            reading=read,
            fit="square" if as_read is None else "whole",
            mean_pixels=0.0 if as_read is None else mean_pixels(as_read.kept),
        )

    def _whole(
        self, train: Split, settings: DataSettings, channels: int
    ) -> tuple[PackedWhole | None, list[str]]:
        """Return the images at their own sizes if they are asked for, and what is to be said."""
        if settings.fit != "whole":
            return None, []
        about, side = self.about, settings.whole_side or DEFAULT_SIZE
        if not about["splits"]["train"].get("whole"):
            return None, [f"{SQUARES} With coview pack --whole {side} a pack does."]
        found = PackedWhole(str(self.root / "train"), about["channels"], side, channels)
        if len(found) != len(train):
            raise ValueError(f"there are {len(found)} sizes for {len(train)} images")
        packed = about["whole_side"]
        if packed == side:
            return found, []
        so = "more crops are enlarged" if packed < side else "they are reduced twice"
        return found, [f"Whole images were packed at data.whole_side = {packed}, not {side}: {so}."]

    def _split(
        self, name: str, settings: DataSettings, size: int, channels: int, resident: bool
    ) -> Split:
        about = self.about["splits"][name]
        shape = (about["count"], self.about["channels"], self.about["size"], self.about["size"])
        mapped = Mapped(str(self.root / f"{name}.images.npy"), shape)
        images: Tensor | Dataset[Tensor] = mapped
        try:
            mapped.values  # noqa: B018  # opened here, so that faults are reported here
            if resident:
                images = fit_all(mapped.values.clone(), size, channels)
            elif shape[1:] != (channels, size, size):
                images = Refitted(mapped, size, channels)
            bad = BadImages(settings.on_bad_image, limit=settings.bad_limit)
            known = {int(row): sentence for row, sentence in about["bad"].items()}
            bad.add(known.items(), shape[0])
            return Split(
                images,
                labels=self._numbers(f"{name}.labels.npy", about["labels"]),
                multi_hot=self._numbers(f"{name}.multi_hot.npy", about.get("multi_hot", False)),
                names=self._names(name, shape[0]) if about["names"] else None,
                rows=self._numbers(f"{name}.rows.npy", about["rows"]),
                fields=read_fields(self.root / name, shape[0]) if about.get("fields") else {},
                bad=bad,
            )
        except (OSError, ValueError, EOFError) as error:
            raise CoviewError(f"The pack {self.root} is damaged ({name}): {error}.") from error

    def _numbers(self, file: str, there: bool) -> Tensor | None:
        return torch.from_numpy(np.load(self.root / file)) if there else None

    def _names(self, name: str, count: int) -> tuple[str, ...]:
        names = (self.root / f"{name}.names").read_bytes().split(b"\0")[:-1]
        if len(names) != count:
            raise ValueError(f"there are {len(names)} names for {count} images")
        return tuple(map(os.fsdecode, names))


def _as_packed(read: Mapping[str, str], settings: DataSettings) -> Iterator[str]:
    """Yield a sentence for each setting that came too late, as the pixels are packed."""
    usual = DataSettings()
    for name, value in read.items():
        asked = getattr(settings, name)
        if asked not in (value, getattr(usual, name)):
            yield f"These images were packed with data.{name} = {value}: {asked} has no effect."


def _about(file: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = about["coview_pack"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CoviewError(f"{file} is damaged: {error!r}.") from error
    if version != FORMAT:
        raise RequestError(f"{file} has format {version}; this coview reads format {FORMAT}.")
    return about
