"""The data set ``wds``."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset
from webdataset.shardlists import expand_urls

from coview.data.assemble import assemble, delivered_size
from coview.data.bad_images import BadImageError
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import decode_file, decode_whole, named
from coview.data.sources.listing import counted
from coview.data.sources.sample import Sample
from coview.data.sources.targets import as_classes, counts, multi_hot, numbered, several
from coview.data.sources.written import classes_of, why_not_classes
from coview.data.splits import digest
from coview.data.values import Reading
from coview.errors import CoviewError, RequestError
from coview_webdataset.index import FURTHER, IMAGES, Index, index_of

HELD = re.compile(r"(?:^|[^a-z])(test|val|validation)(?![a-z])")


class Shards:
    """WebDataset shards in a file system.

    Shards with the word test, val or validation in their name are the test split;
    without any, a share is held out.
    """

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Index the shards; ``download`` has no effect."""
        if path is None:
            raise RequestError("The data set wds needs shards: write 'wds:shards-{000..099}.tar'.")
        self.name = f"wds:{path}"
        shards = _expanded(path)
        held = [shard for shard in shards if HELD.search(shard.name.lower())]
        trained = [shard for shard in shards if shard not in held] or held
        self.train = Samples.of(trained)
        self.test = Samples.of(held) if held and trained != held else None

    def native_size(self) -> int:
        """Return the short side if a sample of images shares one of up to 64, else 256."""
        return self._sample.native_size()

    def count(self) -> int:
        """Return the number of images to train on, some of which may be held out."""
        return len(self.train)

    @cached_property
    def _sample(self) -> Sample:
        images = self.train
        return Sample.of(
            len(images),
            lambda row: (images.file(row), images.ending(row)),
            lambda row, error: _of_shard(images.names[row], error),
        )

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; in colour unless ``settings`` ask for grey."""
        native, channels = self.native_size(), self._sample.channels(settings)
        parts = [self.train] if self.test is None else [self.train, self.test]
        lost = [text for p in parts for text in p.lost]
        if lost and settings.on_bad_image == "stop":
            raise CoviewError(f"{lost[0]} (To use what there is: --on-bad-image skip)")
        reading, said = self._sample.reading(settings)
        size = delivered_size(settings, native)
        sized = [attrs.evolve(p, size=size, channels=channels, reading=reading) for p in parts]
        truth, classes, why = _truth(parts)
        others = Counter(text for p in parts for text in p.others)
        further = {text: n for text, n in others.items() if text.startswith(FURTHER)}
        if further:
            kinds = {text.removeprefix(FURTHER): count for text, count in further.items()}
            said = (f"Images left out, as their sample has another: {counted(kinds)}.", *said)
        if empty := {text: n for text, n in others.items() if text not in further}:
            said = (f"Samples that are left out, as they hold no image: {counted(empty)}.", *said)
        splits = [
            Split(images, own, images.names)
            if own is None or own.ndim == 1
            else Split(images, names=images.names, multi_hot=own)
            for images, own in zip(sized, truth, strict=True)
        ]
        return assemble(
            self.name,
            splits[0],
            splits[1] if len(splits) > 1 else None,
            settings,
            native=native,
            channels=channels,
            classes=classes,
            fingerprint=digest(
                *(text for p in parts for text in (*p.names, str(p.places.tolist())))
            ),
            published=self._sample.published,
            notes=(*lost, *why, *self._sample.notes(channels), *said),
            workers=workers,
            reading=reading,
            summary={
                "found": sum(map(len, parts)) + others.total(),
                "left_out": dict(others),
                "labels": counts(truth, classes),
                **self._sample.facts(),
            },
        )


@attrs.frozen(eq=False)
class Samples(Dataset[Tensor]):
    """Images in shards, decoded on demand: one (channels, size, size) uint8 tensor per index.

    Attributes:
        shards: paths of the shards.
        names: SHARD/KEY.EXTENSION of each image.
        places: (N, 3) int64: each image's shard number, first byte and length.
        labels: each image's label as text; empty if it has none.
        others: what samples without an image hold.
        lost: a sentence on each shard that ends early.
        size, channels: size and number of channels of the decoded images.
        reading: what the values in the files mean.
    """

    shards: tuple[str, ...]
    names: tuple[str, ...]
    places: np.ndarray[Any, Any]
    labels: tuple[str, ...]
    others: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    size: int = 256
    channels: int = 3
    reading: Reading = Reading()

    @classmethod
    def of(cls, shards: Sequence[Path]) -> Samples:
        """Return the samples of shards, in order.

        Raises:
            RequestError: the shards hold no images.
        """
        found = [index_of(shard) for shard in shards]
        names = [
            f"{s.name}/{name}"
            for s, index in zip(shards, found, strict=True)
            for name in index.names
        ]
        if not names:
            raise RequestError(
                f"The shards ({shards[0]}, ...) hold no images ({', '.join(IMAGES)})."
            )
        places = np.concatenate([_numbered(number, index) for number, index in enumerate(found)])
        labels = tuple(label for index in found for label in index.labels)
        others = tuple(text for index in found for text in index.others)
        lost = tuple(index.lost for index in found if index.lost)
        return cls(tuple(map(str, shards)), tuple(names), places, labels, others, lost)

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int) -> io.BytesIO:
        """Return an image's bytes, undecoded."""
        shard, start, length = self.places[row].tolist()
        with Path(self.shards[shard]).open("rb") as file:
            file.seek(start)
            content = file.read(length)
        if len(content) < length:
            raise ValueError("its shard ends within it")
        return io.BytesIO(content)

    def ending(self, row: int) -> str:
        """Return the ending of an image's name, in lower case."""
        return f".{self.names[row].rpartition('.')[2].lower()}"

    def __getitem__(self, row: int) -> Tensor:
        try:
            file, ending = self.file(row), self.ending(row)
            return decode_file(file, ending, self.size, self.channels, self.reading)
        except Exception as error:  # see coview.data.decode.decode
            raise _of_shard(self.names[row], error) from error

    def at_own_size(self, side: int) -> Dataset[Tensor]:
        """Return the same images at their own sizes, for crops that are cut from them."""
        return WholeSamples(self, side)


@attrs.frozen(eq=False)
class WholeSamples(Dataset[Tensor]):
    """Images in shards at their own sizes: one (channels, h, w) uint8 tensor per index."""

    samples: Samples
    side: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Tensor:
        own = self.samples
        try:
            file, ending = own.file(row), own.ending(row)
            return decode_whole(file, ending, self.side, own.channels, own.reading)
        except Exception as error:  # see coview.data.decode.decode
            raise _of_shard(own.names[row], error) from error


def _of_shard(name: str, error: Exception) -> BadImageError:
    # PIL's message names the object that it read from, which helps nobody.
    return named(name, ValueError(re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", str(error))))


def _numbered(number: int, index: Index) -> np.ndarray[Any, Any]:
    return np.concatenate([np.full((len(index.names), 1), number), index.places], axis=1)


def _expanded(path: str) -> list[Path]:
    if Path(path).is_dir():
        shards = sorted(Path(path).glob("*.tar"))
        if not shards:
            raise RequestError(f"The folder {path} holds no .tar files.")
        return shards
    urls = list(expand_urls(path))
    if remote := [url for url in urls if "://" in url or url.startswith("pipe:")]:
        raise RequestError(
            f"{remote[0]} is not a local file. Download the shards first: images are read directly "
            "from their place in the file."
        )
    shards = [Path(url).expanduser() for url in urls]
    if gone := [shard for shard in shards if not shard.is_file()]:
        raise RequestError(
            f"There is no shard {gone[0]} ({len(gone)} of {len(shards)} shards are missing)."
        )
    return shards


def _truth(
    parts: Sequence[Samples],
) -> tuple[list[Tensor | None], tuple[str, ...], tuple[str, ...]]:
    """Return of each part (n,) int64 or (n, C) bool or None, the classes' names, and notes."""
    texts = [label for part in parts for label in part.labels]
    if "" in texts and any(texts):
        raise RequestError(f"{texts.count('')} of {len(texts)} samples have no label.")
    nothing: list[Tensor | None] = [None] * len(parts)
    if "" in texts:
        return nothing, (), ()
    lengths = [len(part) for part in parts]
    lists = any(text.startswith("[") for text in texts)
    if lists and (found := multi_hot(classes_of(texts))) is not None:
        hot, classes = found
        return list(hot.split(lengths)), classes, (several(len(classes)),)
    if why := why_not_classes(texts):
        return nothing, (), (why,)
    numbers, classes = numbered(as_classes(texts), len(texts))
    return list(numbers.split(lengths)), classes, ()
