"""The data set ``wds``."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from webdataset.shardlists import expand_urls

from coview.data.assemble import assemble, common_size, delivered_size
from coview.data.bad_images import BadImageError
from coview.data.base import IMAGENET_MEAN, IMAGENET_STD, DataSettings, ImageData, Split
from coview.data.decode import FORMATS, decode_plain, named
from coview.data.sources.arrays import numbered
from coview.data.splits import digest, evenly_spaced
from coview.errors import RequestError
from coview_webdataset.index import IMAGES, Index, index_of

HELD = re.compile(r"(?:^|[^a-z])(test|val|validation)(?![a-z])")
LOOKED_AT = 32


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
        sizes, problems = [], []
        for row in evenly_spaced(len(self.train), LOOKED_AT):
            try:
                with Image.open(self.train.file(row), formats=FORMATS) as image:
                    sizes.append(min(image.size))
            except Exception as error:  # see coview.data.decode.decode
                problems.append(named(self.train.names[row], error))
        if not sizes:
            raise problems[0]
        return common_size(sizes)

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; in colour unless ``settings`` ask for grey."""
        native, channels = self.native_size(), settings.channels or 3
        parts = [self.train] if self.test is None else [self.train, self.test]
        sized = [
            attrs.evolve(p, size=delivered_size(settings, native), channels=channels) for p in parts
        ]
        labels, classes = _labels(parts)
        splits = [
            Split(images, own, images.names) for images, own in zip(sized, labels, strict=True)
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
            published=(IMAGENET_MEAN, IMAGENET_STD),
            workers=workers,
        )


@attrs.frozen(eq=False)
class Samples(Dataset[Tensor]):
    """Images in shards, decoded on demand: one (channels, size, size) uint8 tensor per index.

    Attributes:
        shards: paths of the shards.
        names: SHARD/KEY.EXTENSION of each image.
        places: (N, 3) int64: each image's shard number, first byte and length.
        labels: each image's label as text; empty if it has none.
        size, channels: size and number of channels of the decoded images.
    """

    shards: tuple[str, ...]
    names: tuple[str, ...]
    places: np.ndarray[Any, Any]
    labels: tuple[str, ...]
    size: int = 256
    channels: int = 3

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
        return cls(tuple(map(str, shards)), tuple(names), places, labels)

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int) -> io.BytesIO:
        """Return an image's bytes, undecoded."""
        shard, start, length = self.places[row].tolist()
        with Path(self.shards[shard]).open("rb") as file:
            file.seek(start)
            return io.BytesIO(file.read(length))

    def __getitem__(self, row: int) -> Tensor:
        try:
            return decode_plain(self.file(row), self.size, self.channels)
        except Exception as error:  # see coview.data.decode.decode
            raise _of_shard(self.names[row], error) from error


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


def _labels(parts: Sequence[Samples]) -> tuple[list[Tensor | None], tuple[str, ...]]:
    """Return each part's numbered labels, and the classes' names; None and () without labels."""
    texts = [label for part in parts for label in part.labels]
    if "" in texts:
        if any(texts):
            raise RequestError(f"{texts.count('')} of {len(texts)} samples have no label.")
        return [None] * len(parts), ()
    whole = all(text.isdecimal() for text in texts)
    numbers, classes = numbered([int(t) for t in texts] if whole else texts, len(texts))
    return list(_cut(numbers, [len(part) for part in parts])), classes


def _cut(values: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
    ends = np.cumsum([0, *lengths]).tolist()
    for start, stop in pairwise(ends):
        yield values[start:stop]
