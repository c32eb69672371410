"""A list of image files: CSV, JSON lines, Parquet, or one path a line."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.data.assemble import assemble, delivered_size
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import Files
from coview.data.sources.listing import HELD, TRAIN, counted
from coview.data.sources.sample import Sample
from coview.data.sources.targets import as_classes, counts, multi_hot, numbered, several
from coview.data.sources.written import as_number, classes_of, why_not_classes
from coview.data.splits import digest
from coview.errors import RequestError, unknown

COLUMNS = {
    "image": ("image", "path", "file", "filename", "file_name", "filepath", "file_path",
              "image_path", "img", "image_id", "imageid", "id"),
    "label": ("label", "class", "target", "category", "labels", "class_name", "label_name",
              "classes", "tags"),
    "split": ("split", "set", "subset", "partition"),
}  # fmt: skip
"""What a column may be called, in any case, if it is not named."""
OPTIONS = (*COLUMNS, "root")
ENDINGS = ("", ".jpg", ".jpeg", ".png", ".tif", ".webp")
"""Lists may leave a file's ending out."""
WRITE = "write list:FILE,image=COLUMN,label=COLUMN,split=COLUMN,root=FOLDER"

Row = Mapping[str, Any]


@attrs.frozen
class Listed:
    """One line of a list.

    Attributes:
        path: the file as it is opened.
        name: the file as it was written.
        label: as it was written; None: it has none.
        split: ``"train"``, ``"test"``, or another name of a split.
        more: what the other columns hold, and the label.
    """

    path: str
    name: str
    label: Any
    split: str
    more: Row


@attrs.frozen
class _Parts:
    """The rows of a list by what they are used for.

    Attributes:
        train, test: images with a label each, if there are any, else without.
        bare: further images to train on, which have no label.
        left: number of those that are not used, by reason.
        labelled: whether there are labels that evaluation can use.
        classes: of each row of ``train``, then ``test``: its classes, where images may have
            several; empty: they have not.
        why: why labels are not one class each, in a sentence; empty: they are.
    """

    train: list[Listed]
    test: list[Listed]
    bare: list[Listed]
    left: Counter[str]
    labelled: bool
    classes: list[Any]
    why: str


class ListFile:
    """Images whose paths, labels and splits a file lists.

    Paths are relative to the list's folder, or to ``root``. Columns are named
    (``list:birds.csv,image=photo,label=species,split=fold``) or known by their
    usual names. Rows without a label are trained on, and not measured with. The
    other columns are fields of the images, and the labels too if they are not one
    class each (several classes, numbers): methods and observers may ask for them.
    """

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Read the list; ``download`` has no effect."""
        if path is None:
            raise RequestError("The data set list needs a file: write list:FILE.")
        self.name = f"list:{path}"
        self.file, self.asked = _parts(path)
        if not self.file.is_file():
            raise RequestError(f"There is no file {self.file}.")
        self.rows = list(self._rows())
        if not self.rows:
            raise RequestError(f"{self.file} lists no images.")

    def _rows(self) -> Iterator[Listed]:
        rows = _read(self.file)
        root = Path(self.asked["root"]).expanduser() if "root" in self.asked else self.file.parent
        columns = self._columns(rows, root)
        place = _placed(root, [str(row.get(columns["image"]) or "") for row in rows])
        self.nameless = 0
        self.fields = [name for name in rows[0] if name not in columns.values()] if rows else []
        if "label" in columns:
            self.fields.append(columns["label"])
        for row in rows:
            written = str(row.get(columns["image"]) or "").strip()
            if not written:
                self.nameless += 1
                continue
            label, split = (row.get(columns.get(kind, "")) for kind in ("label", "split"))
            label = label.strip() if isinstance(label, str) else label
            known = None if label == "" else label
            yield Listed(place(written), written, known, self._split(split), row)

    def _columns(self, rows: Sequence[Row], root: Path) -> dict[str, str]:
        """Return the name of the column of each kind that there is."""
        there = list(rows[0]) if rows else []
        lower = {name.lower().strip(): name for name in reversed(there)}
        found: dict[str, str] = {}
        for kind, usual in COLUMNS.items():
            if (asked := self.asked.get(kind)) is not None:
                if asked not in there:
                    raise RequestError(
                        f"{self.file}: {unknown('column', asked, there)} Its columns: "
                        f"{', '.join(there)}."
                    )
                found[kind] = asked
            elif (name := next((lower[n] for n in usual if n in lower), None)) is not None:
                found[kind] = name
        if rows and "image" not in found:
            files = (n for n in there if _find(root, str(rows[0][n])) is not None)
            if (name := next(files, None)) is None:
                raise RequestError(
                    f"{self.file} has no column that is known to hold paths (its columns: "
                    f"{', '.join(there)}): {WRITE}."
                )
            found["image"] = name
        return found

    def _split(self, written: Any) -> str:
        if written in (None, ""):
            return "train"
        name = str(written).strip().lower()
        if name not in (*TRAIN, *HELD):
            raise RequestError(
                f"{self.file}: the column of splits must say train, test or val, not {written!r}. "
                "If it means something else, choose another: list:FILE,split=COLUMN."
            )
        return "train" if name in TRAIN else name

    def native_size(self) -> int:
        """Return the short side if a sample of images shares one of up to 64, else 256."""
        return self._sample.native_size()

    def count(self) -> int:
        """Return the number of files to train on, some of which may be held out."""
        return sum(row.split == "train" for row in self.rows)

    @cached_property
    def _sample(self) -> Sample:
        trained = [row.path for row in self.rows if row.split == "train"]
        return Sample.of_files(trained or [self.rows[0].path])

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; in colour unless ``settings`` ask for grey."""
        native, channels = self.native_size(), self._sample.channels(settings)
        reading, said = self._sample.reading(settings)
        empty = Files((), delivered_size(settings, native), channels, settings.decoder, reading)
        parts = self._parts()
        truth, classes = self._truth(parts)
        count = len(parts.train)
        test = self._made(parts.test, empty, None if truth is None else truth[count:])
        return assemble(
            self.name,
            self._made(parts.train, empty, None if truth is None else truth[:count]),
            test if parts.test else None,
            settings,
            native=native,
            channels=channels,
            classes=classes,
            fingerprint=digest(*self._identity()),
            published=self._sample.published,
            notes=(*self._notes(parts), *self._sample.notes(channels), *said),
            workers=workers,
            unlabelled=self._made(parts.bare, empty, None) if parts.bare else None,
            reading=reading,
            summary={
                "found": len(self.rows),
                "left_out": dict(parts.left),
                "labels": counts([truth], classes),
                **self._sample.facts(),
            },
        )

    def _parts(self) -> _Parts:
        """Share out the rows: to train on, to test with, without a label, and not used."""
        splits = dict.fromkeys(row.split for row in self.rows)
        held = next((name for name in HELD if name in splits), None)
        train = [row for row in self.rows if row.split == "train"]
        test = [row for row in self.rows if held is not None and row.split == held]
        if not train:
            raise RequestError(
                f"{self.file} lists no images to train on: its column of splits says "
                f"{', '.join(splits)}."
            )
        left = Counter(
            f"in the split {row.split}" for row in self.rows if row.split not in ("train", held)
        )
        classes = classes_of([row.label for row in (*train, *test)])
        why = (
            ""
            if classes
            else why_not_classes([row.label for row in train if row.label is not None])
        )
        bare: list[Listed] = []
        labelled = any(row.label is not None for row in train) and not why
        if labelled:
            left[f"in the split {held} without a label"] = sum(row.label is None for row in test)
            test = [row for row in test if row.label is not None]
            bare = [row for row in train if row.label is None]
            train = [row for row in train if row.label is not None]
            classes = [row for row in classes if row is not None]
        return _Parts(train, test, bare, +left, labelled, classes, why)

    def _made(self, rows: Sequence[Listed], empty: Files, truth: Tensor | None) -> Split:
        paths = tuple(row.path for row in rows)
        names = tuple(row.name for row in rows)
        fields = {name: _field([row.more.get(name) for row in rows]) for name in self.fields}
        files = attrs.evolve(empty, paths=paths)
        if truth is not None and truth.ndim == 2:
            return Split(files, names=names, fields=fields, multi_hot=truth)
        return Split(files, truth, names, fields=fields)

    def _truth(self, parts: _Parts) -> tuple[Tensor | None, tuple[str, ...]]:
        """Return one class, or which classes, of each row of train, then test; and their names."""
        if not parts.labelled:
            return None, ()
        if parts.classes:
            return multi_hot(parts.classes) or (None, ())
        rows = [*parts.train, *parts.test]
        texts = [str(row.label) for row in rows]
        return numbered(as_classes(texts), len(texts))

    def _identity(self) -> Iterator[str]:
        for row in self.rows:
            yield from (row.name, str(row.label), row.split, str(_bytes(row.path)))

    def _notes(self, parts: _Parts) -> Iterator[str]:
        if parts.why:
            yield f"{parts.why} They are a field of the images."
        if parts.labelled and parts.classes:
            yield several(len(self._truth(parts)[1]))
        if self.nameless:
            yield f"{self.nameless} lines of {self.file} name no image."
        if parts.bare:
            yield (
                f"{len(parts.bare)} of {len(self.rows)} listed images have no label: they are "
                "trained on, and not measured with."
            )
        if parts.left:
            yield f"Listed images that are not used: {counted(parts.left)}."
        if gone := sum(_bytes(row.path) < 0 for row in self.rows):
            yield f"{gone} of {len(self.rows)} listed files are not there: they are unreadable."
        if twice := len(self.rows) - len({row.path for row in self.rows}):
            yield f"{twice} lines list a file again that was listed before."


def _parts(path: str) -> tuple[Path, dict[str, str]]:
    """Split ``FILE,KEY=VALUE,...`` at the first comma before a known key."""
    pattern = rf",(?=(?:{'|'.join(OPTIONS)})=)"
    file, *pieces = re.split(pattern, path)
    return Path(file).expanduser(), dict(piece.split("=", 1) for piece in pieces)


def _read(file: Path) -> list[Row]:
    """Return a list's lines as rows of named columns."""
    ending = file.suffix.lower()
    try:
        if ending == ".parquet":
            return _parquet(file)
        text = file.read_text(encoding="utf-8-sig")
        if ending in (".csv", ".tsv"):
            return _table(file, text)
        if ending in (".jsonl", ".ndjson", ".json"):
            found = (
                json.loads(text)
                if text.lstrip().startswith("[")
                else [json.loads(line) for line in text.splitlines() if line.strip()]
            )
            if not all(isinstance(row, dict) for row in found):
                raise ValueError('every line must be an object like {"image": "a.jpg"}')
            return found
        return _lines(file, text)
    except (OSError, ValueError, csv.Error) as error:
        raise RequestError(f"The list {file} cannot be read: {error}.") from error


def _table(file: Path, text: str) -> list[Row]:
    first = text.partition("\n")[0]
    delimiter = max("\t,;", key=first.count) if file.suffix.lower() == ".csv" else "\t"
    lines = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    if not lines:
        return []
    head, body = lines[0], lines[1:]
    known = {name for names in COLUMNS.values() for name in names}
    files = any(_find(file.parent, cell) is not None for cell in head)
    if files and not known & {cell.lower() for cell in head}:
        names = ("image", "label", "split", *map(str, range(3, len(head))))
        head, body = list(names[: len(head)]), lines
    return [dict(zip(head, row, strict=False)) for row in body]


def _lines(file: Path, text: str) -> list[Row]:
    """Return the rows of a plain list: a path, or a path and a label, on every line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and _find(file.parent, lines[0]) is None and len(lines[0].split()) > 1:
        return [dict(zip(("image", "label"), line.rsplit(None, 1), strict=True)) for line in lines]
    return [{"image": line} for line in lines]


def _parquet(file: Path) -> list[Row]:
    try:
        import pyarrow.parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise RequestError(f"{file} needs pyarrow: pip install pyarrow") from error
    rows: list[Row] = pyarrow.parquet.read_table(file).to_pylist()
    return rows


def _find(root: Path, written: str) -> str | None:
    """Return the ending to add to a path so that there is such a file; None: there is none."""
    if not written:
        return None
    return next((end for end in ENDINGS if (root / (written + end)).is_file()), None)


def _placed(root: Path, written: Sequence[str]) -> Callable[[str], str]:
    """Return what turns a path as written into one that can be opened."""
    first = next(iter(written), "")
    usual = _find(root, first) or _find(root, first.replace("\\", "/")) or ""

    def place(name: str) -> str:
        if "\\" in name and _find(root, name) is None:
            name = name.replace("\\", "/")  # written on Windows
        added = usual if usual and (root / (name + usual)).is_file() else _find(root, name)
        return str(root / (name + (added or "")))

    return place


def _bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _field(values: Sequence[Any]) -> Tensor | list[Any]:
    """Return a column as a tensor (N,) if it holds numbers, else as it is."""
    numbers = [as_number(value) for value in values]
    return list(values) if None in numbers else torch.tensor(numbers)
