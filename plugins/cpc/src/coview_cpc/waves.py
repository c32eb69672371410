"""A folder of WAV files as a data set of signals."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.bad_images import BadImageError, BadImages
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import decode_all
from coview.data.sources.folder import Folder, Listing
from coview.data.splits import digest, hold_out, part
from coview.errors import CoviewError, RequestError

CLIP = 40960
"""Samples kept of a recording if the recipe does not say how many: 2.56 s at 16 kHz."""


class Waves(Folder):
    """WAV files below a folder (PCM of 8 to 32 bits, any rate, channels averaged).

    Folders are read like those of images: ``train`` and ``test`` (or ``val``) are
    splits, and the folders one level below are classes. Every recording becomes
    ``data.size`` samples long: a longer one is cut to its middle, a shorter one is
    padded with zeros. Nothing is resampled; files of different rates are refused.
    """

    kind: ClassVar[str] = "wav"
    suffixes: ClassVar[frozenset[str]] = frozenset({".wav"})
    gives: ClassVar[str] = "signals"
    example_method: ClassVar[str] = "cpc-audio"

    def native_size(self) -> int:
        """Return the number of samples in a clip."""
        return CLIP

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the recordings, (1, T) float in [-1, 1] each."""
        listings = [self.train] if self.test is None else [self.train, self.test]
        classes = tuple(sorted({name for listing in listings for name in listing.classes or ()}))
        samples = settings.size or CLIP
        self._check_rates(listings)
        splits = [self._recordings(listing, classes, samples) for listing in listings]
        notes = self.layout.notes
        if self.train.loose:
            notes = (*notes, f"{self.train.loose} recordings beside the classes are left out.")
        if len(splits) == 1:
            share = settings.held_out(splits[0].labels is not None)
            kept, held = hold_out(len(splits[0]), splits[0].labels, share)
            told = f"{len(held)} of {len(splits[0])} recordings are held out for testing."
            notes = (*notes, told)
            splits = [part(splits[0], rows) for rows in (kept, held) if len(rows)]
        splits = [attrs.evolve(s, bad=BadImages(settings.on_bad_image)) for s in splits]
        resident = sum(map(len, splits)) * samples * 4 <= settings.resident_mib << 20
        if resident:
            splits = [attrs.evolve(s, images=decode_all(s.images, workers, s.bad)) for s in splits]  # type: ignore[arg-type]
        return ImageData(
            name=self.name,
            train=splits[0],
            test=splits[1] if len(splits) > 1 else None,
            reference=splits[0],
            classes=classes if len(classes) > 1 else (),
            channels=1,
            size=samples,
            mean=(0.0,),
            std=(1.0,),
            fingerprint=digest(
                *(str(text) for s in listings for text in (*s.names, *s.bytes)), *self.layout.marks
            ),
            notes=notes,
        )

    def _recordings(self, listing: Listing, classes: tuple[str, ...], samples: int) -> Split:
        labels = None
        if listing.classes is not None and len(classes) > 1:
            labels = torch.tensor([classes.index(name) for name in listing.classes])
        paths = tuple(str(self.root / name) for name in listing.names)
        return Split(Clips(paths, samples), labels, listing.names)

    def _check_rates(self, listings: list[Listing]) -> None:
        rates = {rate_of(self.root / name) for listing in listings for name in listing.names}
        if len(rates) > 1:
            raise RequestError(
                f"The recordings below {self.root} have different rates ({sorted(rates)} Hz): "
                "resample them to one rate, for example 16000."
            )


@attrs.frozen(eq=False)
class Clips(Dataset[Tensor]):
    """Recordings read on demand: one (1, samples) float tensor per index."""

    paths: tuple[str, ...]
    samples: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        signal = read(self.paths[index])
        extra = len(signal) - self.samples
        if extra >= 0:
            return signal[extra // 2 :][: self.samples][None].clone()
        clip = torch.zeros(1, self.samples)
        clip[0, -extra // 2 :][: len(signal)] = signal
        return clip


def rate_of(path: Path) -> int:
    """Return a recording's samples per second."""
    try:
        with wave.open(str(path)) as file:
            return int(file.getframerate())
    except (wave.Error, EOFError, OSError) as error:
        raise CoviewError(
            f"The recording {path} cannot be read: {error or 'it ends early'}."
        ) from error


def read(path: str) -> Tensor:
    """Return a recording, (T,) float32 in [-1, 1], with its channels averaged.

    Raises:
        BadImageError: the recording cannot be read.
    """
    try:
        with wave.open(path) as file:
            width, channels = file.getsampwidth(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise BadImageError(
            f"The recording {path} cannot be read: {error or 'it ends early'}."
        ) from error
    values = _samples(data[: len(data) // (width * channels) * width * channels], width)
    return torch.from_numpy(values.reshape(-1, channels).mean(axis=1).astype(np.float32))


def _samples(data: bytes, width: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Decode little-endian PCM; one byte is unsigned, more are signed."""
    if width == 1:
        return np.frombuffer(data, np.uint8).astype(np.float64) / 128 - 1
    # Widened to four bytes by zeros below, as there is no type of three bytes.
    wide = np.zeros((len(data) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return wide.view("<i4")[:, 0].astype(np.float64) / 2**31
