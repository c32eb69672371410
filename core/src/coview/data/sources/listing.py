"""The images below a folder: which files are images, what is left out, which folders mean what."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path, PurePath

import attrs
from PIL import UnidentifiedImageError

from coview.data.bands import ARRAYS
from coview.data.pillow import STACKS, USUAL, is_image, opened
from coview.errors import RequestError

SUFFIXES = USUAL | ARRAYS | STACKS
"""Endings of most images; others that Pillow decodes are looked up when a folder has them."""
TRAIN = ("train", "training")
HELD = ("test", "testing", "val", "valid", "validation")
"""Names of folders that hold a split, in any case; the first with labels is the test split."""
FIRST = frozenset({"train", "test", "val"})
"""Those known to version 0.1: layouts with others have a new fingerprint."""
NAMED = 6
RUN = ("run.json", "recipe.toml")
"""Files that every run has."""


@attrs.frozen
class Listing:
    """The images below a folder, in a fixed order.

    Attributes:
        names: POSIX paths relative to the data set's root.
        bytes: each file's size.
        classes: each image's class, named after its sub-folder; None if the
            folder has no sub-folders with images.
        loose: number of images beside the class folders, which have no label.
        lost: number of links that lead nowhere or in a circle, and of files that
            disappeared meanwhile.
        beside: the images beside the class folders; None if there are none.
        others: number of files that are no images, by ending.
        empty: names of sub-folders without images.
    """

    names: tuple[str, ...]
    bytes: tuple[int, ...]
    classes: tuple[str, ...] | None
    loose: int = 0
    lost: int = 0
    beside: Listing | None = None
    others: Mapping[str, int] = attrs.field(factory=dict)
    empty: tuple[str, ...] = ()


@attrs.define
class _Left:
    """What is left out on the way."""

    lost: int = 0
    others: Counter[str] = attrs.field(factory=Counter)


def list_images(folder: Path, root: Path, suffixes: Set[str] | None = None) -> Listing:
    """List the images of ``folder``, at any depth, with names relative to ``root``.

    Args:
        folder: the folder to list.
        root: the data set's folder.
        suffixes: endings of the files' names, in lower case; None: those of images,
            and images without an ending.

    Raises:
        RequestError: there are no images, or a folder cannot be read.
    """
    found, left = _found(folder, suffixes)
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in suffixes or SUFFIXES))
        others = f" It holds {counted(left.others)}." if left.others else ""
        raise RequestError(f"The folder {folder} holds no images ({kinds}).{others}")
    within = [(path, size) for path, size in found if path.parent != folder]
    kept = within or found
    beside = [item for item in found if item[0].parent == folder] if within else []
    classes = tuple(path.relative_to(folder).parts[0] for path, _ in within) if within else None
    used = set(classes or ())
    return Listing(
        *_columns(kept, root),
        classes=classes,
        loose=len(beside),
        lost=left.lost,
        beside=Listing(*_columns(beside, root), classes=None) if beside else None,
        others=left.others,
        empty=tuple(name for name in _folders(folder) if name not in used),
    )


def _columns(
    found: Sequence[tuple[PurePath, int]], root: Path
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = tuple(path.relative_to(root).as_posix() for path, _ in found)
    return names, tuple(size for _, size in found)


def _found(folder: Path, suffixes: Set[str] | None) -> tuple[list[tuple[PurePath, int]], _Left]:
    """Return the images below a folder with their sizes in bytes, and what is left out."""
    found: list[tuple[PurePath, int]] = []
    left = _Left()
    try:
        for entry in _walk(str(folder), (), suffixes, left):
            try:
                status = entry.stat()
            except OSError:
                left.lost += 1
                continue
            # Skip folders and pipes: reading a pipe would wait forever.
            if not stat.S_ISREG(status.st_mode):
                left.others["no regular file"] += 1
            elif _wanted(entry, suffixes):
                found.append((PurePath(entry.path), status.st_size))
            else:
                left.others[_ending(entry.name) or "without an ending"] += 1
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return found, left


def _walk(
    folder: str, above: tuple[str, ...], suffixes: Set[str] | None, left: _Left
) -> Iterator[os.DirEntry[str]]:
    """Yield files, sorted; links to a folder above are not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if _hidden(entry.name):
            # .DS_Store and .cache are not data; macOS's ._photo.jpg is no photo, but looks so.
            left.others["hidden"] += _ending(entry.name) in (suffixes or SUFFIXES)
        elif _is_folder(entry):
            if _is_run(entry.path):
                left.others["run of coview"] += 1
                continue
            yield from _walk(entry.path, (*above, here), suffixes, left)
        else:
            yield entry
    left.others += Counter()  # drops zeros


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _wanted(entry: os.DirEntry[str], suffixes: Set[str] | None) -> bool:
    ending = _ending(entry.name)
    if suffixes is not None:
        return ending in suffixes
    if ending in SUFFIXES:
        return True
    return is_image(ending) if ending else _looks_like_one(entry.path)


def _looks_like_one(path: str) -> bool:
    """Return whether a file without an ending is an image by its content."""
    try:
        with opened(path, ""):
            return True
    except UnidentifiedImageError:
        return False
    except Exception:  # damaged, or not to be read: it is named when it is decoded
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _is_run(folder: str) -> bool:
    """Return whether a folder is a run of coview: the pictures in it are no data."""
    return all(os.path.isfile(f"{folder}{os.sep}{name}") for name in RUN)  # noqa: PTH113


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not _hidden(e.name) and _is_folder(e))


def counted(others: Mapping[str, int]) -> str:
    """Return counts in words: ``3 .txt, 1 .json``."""
    ordered = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[NAMED:])
    texts = [f"{count} {ending}" for ending, count in ordered[:NAMED]]
    return ", ".join([*texts, *([f"{rest} others"] if rest else [])])


@attrs.frozen
class Layout:
    """A data set's folder, understood.

    Attributes:
        train: the training images, or all.
        test: the test images; None if there are none with labels where train has labels.
        notes: sentences on what is left out, and why.
        marks: texts that belong into the fingerprint, as version 0.1 understood it otherwise.
        left_out: number of images that are not used, by reason.
    """

    train: Listing
    test: Listing | None = None
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    left_out: Mapping[str, int] = attrs.field(factory=dict)


def understood(root: Path, held: Sequence[str] = HELD, suffixes: Set[str] | None = None) -> Layout:
    """Find the splits and classes below a folder.

    Folders named ``train`` and one of ``held`` are splits; without them, folders
    are classes. A single folder that only holds folders is looked into.

    Raises:
        RequestError: there are no images.
    """
    base, marks, outside = root, [], Counter[str]()
    while (inner := _wrapped(base, suffixes)) is not None:
        outside += _here(base, suffixes)[1]
        base = inner
        marks = [f"below {base.relative_to(root).as_posix()}"]
    there = {name.lower(): name for name in reversed(_folders(base))}
    train = next((there[name] for name in TRAIN if name in there), None)
    splits = [there[name] for name in held if name in there]
    others = [name for name in _folders(base) if name not in (train, *splits)]
    where = (f"The data are the folders in {base.name}.",) if marks else ()
    # A folder "train" beside others may be a class (of vehicles, for example).
    if train is None or (others and not splits):
        every = _also(list_images(base, root, suffixes), outside)
        return Layout(every, notes=where, marks=tuple(marks))
    if not {train, *splits} <= FIRST:
        marks.append("splits")
    made = _split(list_images(base / train, root, suffixes), base, root, splits, suffixes)
    notes, left = [*where, *made.notes], dict(made.left_out)
    for name in (*others, ""):
        place = base / name
        count, no_images = _below(place, suffixes) if name else _here(place, suffixes)
        outside += no_images
        if count:
            said = f"in {name}/" if name else f"beside {train}/"
            notes.append(f"{count} images {said} are left out: they belong to no split.")
            left[said] = count
    marks += made.marks
    train_and = _also(made.train, outside)
    return attrs.evolve(
        made, train=train_and, notes=tuple(notes), marks=tuple(marks), left_out=left
    )


def _wrapped(folder: Path, suffixes: Set[str] | None) -> Path | None:
    """Return the only folder in a folder if that holds folders, and is no split."""
    inside = _folders(folder)
    if len(inside) != 1 or inside[0].lower() in TRAIN:
        return None
    inner = folder / inside[0]
    try:
        return inner if _folders(inner) and not _here(folder, suffixes)[0] else None
    except OSError:
        return None


def _here(folder: Path, suffixes: Set[str] | None) -> tuple[int, Counter[str]]:
    """Return how many images lie in a folder itself, and what else does, by ending."""
    with os.scandir(folder) as entries:
        files = [e for e in entries if not _hidden(e.name) and not _is_folder(e)]
    wanted = [_wanted(entry, suffixes) for entry in files]
    others = (
        _ending(e.name) or "without an ending"
        for e, is_one in zip(files, wanted, strict=True)
        if not is_one
    )
    return sum(wanted), Counter(others)


def _below(folder: Path, suffixes: Set[str] | None) -> tuple[int, Counter[str]]:
    """Return how many images lie below a folder at any depth, and what else does, by ending."""
    found, left = _found(folder, suffixes)
    return len(found), left.others


def _also(listing: Listing, others: Counter[str]) -> Listing:
    return attrs.evolve(listing, others=Counter(listing.others) + others)


def _split(
    train: Listing, base: Path, root: Path, splits: Sequence[str], suffixes: Set[str] | None
) -> Layout:
    """Choose the test split: the first with labels; none, if only train has labels."""
    tests = {name: list_images(base / name, root, suffixes) for name in splits}
    labelled = [name for name, listing in tests.items() if listing.classes is not None]
    chosen = next(iter(labelled or tests), None)
    notes, left, marks = [], {}, []
    if chosen is not None and not labelled and len(set(train.classes or ())) > 1:
        chosen = None
        marks.append("held out of train")
    for name, listing in tests.items():
        if name == chosen:
            continue
        left[f"in {name}/"] = len(listing.names)
        why = f"{chosen}/ is the test split" if chosen else "they have no labels"
        notes.append(
            f"{len(listing.names)} images in {name}/ are not used: {why}. To embed them: "
            f"--data {base / name}"
        )
    test = None if chosen is None else tests[chosen]
    if test is not None and test.loose:
        left[f"beside the classes of {chosen}/"] = test.loose
        notes.append(f"{test.loose} images beside the class folders of {chosen}/ are not used.")
    return Layout(train, test, tuple(notes), tuple(marks), left)
