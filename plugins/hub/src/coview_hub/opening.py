"""What is written after ``hf:``, and opening it with ``datasets``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coview.data.sources.listing import HELD, TRAIN
from coview.errors import CoviewError, RequestError, unknown
from coview_hub.stream import Stream

if TYPE_CHECKING:
    from datasets import Dataset

OPTIONS = ("image", "label", "test", "config", "revision", "stream", "count")
FORM = (
    "hf:NAME[@SPLIT][,image=COLUMN][,label=COLUMN][,test=SPLIT][,config=NAME][,revision=NAME]"
    "[,stream=IMAGES][,count=IMAGES]"
)
FILES = {
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    ".arrow": "arrow",
    ".tar": "webdataset",
}
"""What ``datasets`` calls a file of each ending."""
SAVED = ("dataset_dict.json", "state.json")
"""Files in a folder that ``save_to_disk`` wrote."""


@attrs.frozen
class Asked:
    """What a user wrote after ``hf:``.

    Attributes:
        name: a data set of the Hub, or a path.
        split: the split to train on, as ``datasets`` reads it (``train[:10%]``); None: found.
        options: columns, the split to test with, configuration and revision, if they are given.
    """

    name: str
    split: str | None
    options: dict[str, str]

    @classmethod
    def read(cls, text: str) -> Asked:
        """Take apart ``NAME@SPLIT,KEY=VALUE,...``.

        Raises:
            RequestError: an option is unknown.
        """
        where, *pieces = re.split(r",(?=\w+=)", text)
        options = dict(piece.split("=", 1) for piece in pieces)
        wrong = [unknown("option of hf:", name, OPTIONS) for name in options if name not in OPTIONS]
        if wrong:
            raise RequestError(*(f"{sentence} Write {FORM}." for sentence in wrong))
        # A split has no slash, so a folder may have an @ in its path.
        found = re.fullmatch(r"(.+)@([^@/]+)", where)
        name, split = found.groups() if found else (where, None)
        return cls(name, split, options)

    @property
    def local(self) -> bool:
        """Whether this is a path on this machine."""
        return Path(self.name).exists()


@attrs.frozen(eq=False)
class Opened:
    """The splits of a data set that are used.

    Attributes:
        train, test: memory-mapped tables; ``test`` is None if there is none.
        names: names of these splits.
        others: names of the splits that are not used.
    """

    train: Dataset | Stream
    test: Dataset | None
    names: tuple[str, ...]
    others: tuple[str, ...] = ()


def opened(asked: Asked, download: bool) -> Opened:
    """Open a data set, and choose its splits.

    Raises:
        RequestError: it is not there, or its splits do not tell which to train on.
    """
    if "stream" in asked.options:
        return _streamed(asked, download)
    test = asked.options.get("test")
    if asked.split is not None:
        train = _loaded(asked, asked.split, download)
        held = None if test is None else _loaded(asked, test, download)
        return Opened(train, held, (asked.split, *([test] if test else [])))
    found = _loaded(asked, None, download)
    if not isinstance(found, dict):  # one split, as save_to_disk wrote it
        return Opened(found, None, (str(found.split or "train"),))
    lower = {name.lower(): name for name in reversed(found)}
    name = next((lower[each] for each in TRAIN if each in lower), None)
    if name is None and len(found) == 1:
        name = next(iter(found))
    if name is None:
        first = next(iter(found))
        raise RequestError(
            f"hf:{asked.name} has the splits {', '.join(found)}, none of which is called train. "
            f"Write which to train on: hf:{asked.name}@{first}"
        )
    held_name = test or next((lower[each] for each in HELD if each in lower), None)
    if held_name is not None and held_name not in found:
        raise RequestError(f"hf:{asked.name}: {unknown('split', held_name, found)}")
    used = (name, *([held_name] if held_name else []))
    left = tuple(each for each in found if each not in used)
    return Opened(found[name], found[held_name] if held_name else None, used, left)


def _streamed(asked: Asked, download: bool) -> Opened:
    """Open a split to be read from its beginning to its end."""
    within = _number(asked, "stream")
    if asked.local and any((Path(asked.name) / name).is_file() for name in SAVED):
        raise RequestError(f"{asked.name} is memory-mapped: leave out stream=.")
    if more := [name for name in ("test", "label") if name in asked.options]:
        raise RequestError(
            f"A stream is trained on without labels and measures nothing: leave out {more[0]}=. "
            f"Afterwards: coview evaluate knn RUN --data hf:{asked.name}"
        )
    split = asked.split or "train"
    found = _loaded(asked, split, download, streaming=True)
    known = (found.info.splits or {}).get(split)
    count = _number(asked, "count") if "count" in asked.options else known and known.num_examples
    if not count:
        raise RequestError(
            f"hf:{asked.name} does not say how many images it has. Write it: count=NUMBER"
        )
    stream = Stream(found, f"hf:{asked.name}@{split}", count, min(within, count))
    return Opened(stream, None, (split,))


def _number(asked: Asked, name: str) -> int:
    text = asked.options[name]
    if not (text.isdecimal() and int(text) > 0):
        raise RequestError(f"{name}= takes a number of images, not {text!r}.")
    return int(text)


def _loaded(asked: Asked, split: str | None, download: bool, streaming: bool = False) -> Any:
    """Return a table, or a dictionary of one for each split if ``split`` is None."""
    try:
        import datasets
    except ImportError as error:
        raise RequestError("Data sets called hf: need a library: pip install datasets") from error
    path = Path(asked.name)
    if path.is_dir() and any((path / name).is_file() for name in SAVED):
        return _saved(asked, split)
    where: dict[str, Any] = {"path": asked.name}
    if path.is_file():
        if (kind := FILES.get(path.suffix.lower())) is None:
            raise RequestError(f"{path} is not a file of {', '.join(FILES)}.")
        where = {"path": kind, "data_files": str(path)}
    if asked.local or download:
        quiet = _quiet(bars=download and not asked.local)
    else:
        quiet = _offline()
    # Read before the work: inside, the library may be told that there is no network.
    more = {key: asked.options.get(key) for key in ("config", "revision")}
    try:
        with quiet:
            return datasets.load_dataset(
                **where,
                name=more["config"],
                revision=more["revision"],
                split=split,
                streaming=streaming,
            )
    except Exception as error:
        raise _said(asked, error, download) from error


def _saved(asked: Asked, split: str | None) -> Any:
    import datasets

    try:
        found: Any = datasets.load_from_disk(asked.name)
    except Exception as error:
        raise _said(asked, error, download=False) from error
    if split is None:
        return found
    there = found if isinstance(found, dict) else {str(found.split or "train"): found}
    if split not in there:
        raise RequestError(f"hf:{asked.name}: {unknown('split', split, there)}")
    return there[split]


def _said(asked: Asked, error: Exception, download: bool) -> Exception:
    """Return what the library could not do as a sentence."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    why = f"{type(error).__name__}: {first}".rstrip(": .")
    if asked.local:
        return RequestError(f"datasets cannot read {asked.name} ({why}).")
    if isinstance(error, ValueError):  # a split, a configuration: the message lists what there is
        return RequestError(f"hf:{asked.name}: {first or why}")
    if download:
        return CoviewError(f"The data set hf:{asked.name} could not be downloaded ({why}).")
    return RequestError(
        f"The data set {asked.name} is neither a path nor among the data sets that were downloaded "
        "to this machine. To download it, add: --download"
    )


@contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    """Keep the library's progress bars and remarks to what is downloaded."""
    import datasets

    shown = datasets.utils.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.utils.logging.set_verbosity(logging.ERROR)
    if not bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(shown[0])
        if shown[1]:
            datasets.enable_progress_bars()


@contextmanager
def _offline() -> Iterator[None]:
    """Let the libraries answer from their cache alone, as their own variables ask for."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        with _quiet(bars=False):
            yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
