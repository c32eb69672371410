"""Promises of data sets: a good one keeps all, and each is broken by a bad one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from small_packages import install, write

from coview.cli.new.scaffold import plugin_files
from coview.data.base import Split
from coview.testing import ConformanceError, NotTried
from coview.testing.kit import PROMISES_OF_DATA

Run = Callable[..., Any]

GIVEN = "images = images.unsqueeze(1) if images.ndim == 3 else"
TRUTH = "truth = None if labels is None else torch.from_numpy(labels).long()"
FIELDS = "fields = {k: _field(v) for k, v in arrays.items() if len(v) == len(images)}"
DECLARED = 'fields = ("labels", "any array of the file")'
RETURNED = "        return assemble("
BROKEN = {
    "a size that is no number": (
        "opens",
        'return min(self._arrays()["images"].shape[1:3])',
        'return self._arrays()["images"].mean()',
    ),
    "images that are not of the size told": (
        "gives-images-as-it-says",
        RETURNED,
        "        return _smaller(assemble)(",
        "def _classes(",
        "def _smaller(make):\n"
        "    def made(*given, **more):\n"
        "        data = make(*given, **more)\n"
        "        train = attrs.evolve(data.train, images=data.train.images[..., 1:])\n"
        "        return attrs.evolve(data, train=train)\n"
        "    return made\n\n\ndef _classes(",
        "import numpy as np",
        "import attrs\nimport numpy as np",
    ),
    "a count that depends on the time of day": (
        "keeps-its-count",
        TRUTH,
        f"{TRUTH}\n        Archive.loaded = getattr(Archive, 'loaded', 0) + 1\n"
        "        images, truth = images[Archive.loaded :], truth[Archive.loaded :]",
    ),
    "a count that is far off": (
        "keeps-its-count",
        "    def native_size(self)",
        "    def count(self) -> int:\n        return 1_000_000\n\n    def native_size(self)",
    ),
    "labels that begin at 1": (
        "labels-are-in-range",
        TRUTH,
        "truth = None if labels is None else torch.from_numpy(labels).long() + 1",
        "range(int(labels.max()) + 1)",
        "range(int(labels.max()))",
    ),
    "images with noise": (
        "reads-the-same-again",
        GIVEN,
        f"images = images + torch.randint(2, images.shape, dtype=torch.uint8)\n        {GIVEN}",
    ),
    "a fingerprint of the moment": (
        "reads-the-same-again",
        "fingerprint=digest(images, truth, digest_of_fields(fields))",
        "fingerprint=str(torch.rand(()).item())",
    ),
    "test images that are trained on": (
        "keeps-its-splits-apart",
        RETURNED,
        "        return _leaking(assemble)(",
        "def _classes(",
        "def _leaking(make):\n"
        "    def made(*given, **more):\n"
        "        data = make(*given, **more)\n"
        "        return attrs.evolve(data, test=data.train)\n"
        "    return made\n\n\ndef _classes(",
        "import numpy as np",
        "import attrs\nimport numpy as np",
    ),
    "a field that is not declared": (
        "has-its-fields-as-declared",
        DECLARED,
        'fields = ("labels", "captions")',
    ),
    "labels that are not declared": (
        "has-its-fields-as-declared",
        DECLARED,
        'fields = ("weight",)',
    ),
}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Install what `coview new --kind data` writes, with changes; return what to check."""
    random = np.random.RandomState(0)
    images = random.randint(256, size=(60, 16, 16, 3), dtype=np.uint8)
    path = tmp_path / "set.npz"
    np.savez(path, images=images, labels=np.arange(60) % 3, weight=np.arange(60.0))

    def make(*changes: tuple[str, str]) -> str:
        files, place = plugin_files("archive", "data"), "src/coview_archive/data.py"
        for old, new in changes:
            assert files[place].count(old) == 1, old
            files[place] = files[place].replace(old, new)
        write(tmp_path / "package", files)
        install(tmp_path / "package", "archive", monkeypatch)
        return f"archive:{path}"

    return make


def test_a_good_data_set_keeps_every_promise(archive: Callable[..., str], run: Run) -> None:
    found = run("check", archive(), "--json").json
    assert [r["promise"] for r in found["results"]] == [p.name for p in PROMISES_OF_DATA]
    assert found["ok"] == len(PROMISES_OF_DATA)
    said = {r["promise"]: r["sentence"] for r in found["results"]}
    assert said["opens"] == "48 in train, 12 in test" and said["labels-are-in-range"] == "3 classes"
    assert said["gives-images-as-it-says"] == "3 channels of 16 pixels"
    assert said["has-its-fields-as-declared"] == "fields: labels, weight"
    assert said["keeps-its-splits-apart"] == "by rows"


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_found(archive: Callable[..., str], run: Run, case: str) -> None:
    promise, *texts = BROKEN[case]
    data = archive(*zip(texts[::2], texts[1::2], strict=True))
    found = run("check", data, "--only", promise, "--json", status=1).json
    (result,) = found["results"]
    assert result["status"] == "failed" and result["promise"] == promise
    assert "coview-archive" in result["sentence"] and "\n" not in result["sentence"]
    assert result["page"] == f"docs/authors/promises.md#{promise}"


def test_every_promise_has_a_broken_data_set() -> None:
    assert {case[0] for case in BROKEN.values()} == {promise.name for promise in PROMISES_OF_DATA}


SHOWN = {
    "labels that begin at 1": ("must be from 0 to 2, as there are 3 classes", "is 3; "),
    "images with noise": ("image 0 of train differs when it is loaded anew", "rows differ"),
    "test images that are trained on": ("48 images are in both train and test", "rows in both: 0"),
}


@pytest.mark.parametrize("case", SHOWN)
def test_a_failure_shows_the_numbers(archive: Callable[..., str], run: Run, case: str) -> None:
    promise, *texts = BROKEN[case]
    data = archive(*zip(texts[::2], texts[1::2], strict=True))
    (result,) = run("check", data, "--only", promise, "--json", status=1).json["results"]
    sentence, evidence = SHOWN[case]
    assert sentence in result["sentence"] and evidence in result["evidence"]


def test_names_tell_an_image_in_both_splits() -> None:
    def data(train: Any, test: Any) -> Any:
        splits = [
            None if n is None else Split(torch.zeros(2, 1, 4, 4), names=n) for n in (train, test)
        ]
        return SimpleNamespace(loaded=SimpleNamespace(train=splits[0], test=splits[1]))

    apart = {p.name: p for p in PROMISES_OF_DATA}["keeps-its-splits-apart"].check
    assert apart(data(("a", "b"), ("c", "d"))) == "by names"
    with pytest.raises(ConformanceError, match="1 images are in both(.|\n)*names in both: b"):
        apart(data(("a", "b"), ("b", "c")))
    for unknown in (data(("a", "b"), None), data((), ())):
        unknown.loaded.train = attrs.evolve(unknown.loaded.train, names=None)
        with pytest.raises(NotTried):
            apart(unknown)


def test_a_folder_is_checked_by_its_path(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    for split, count in (("train", 4), ("test", 3)):
        for number in range(count):
            folder = tmp_path / "photos" / split / "a"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / f"{number}.png")
    found = run("check", f"{tmp_path}/photos", "--json").json
    assert found["failed"] == 0 and found["ok"] >= len(PROMISES_OF_DATA) - 1
    # A name without a separator is a method's or a package's, whatever folders there are.
    answer = run("check", "photos", status=2)
    assert "There is no method or package called 'photos'" in answer.stderr


def test_a_package_checks_the_data_that_it_has_by_itself(
    archive: Callable[..., str], run: Run
) -> None:
    found = run("check", "coview-digits", "--json").json
    opened = [r["subject"] for r in found["results"] if r["promise"] == "opens"]
    assert opened == ["coview-digits:colour-digits", "coview-digits:moved-digits"]
    assert found["failed"] == 0
    archive()
    results = run("check", "coview-archive", "--json").json["results"]
    (skipped,) = (r for r in results if r["status"] == "skipped")
    assert skipped["sentence"].startswith("to check it: coview check archive:PATH (The data set ")


def test_options_of_methods_are_refused(refused: Run) -> None:
    for options in (("--use", "loss=info-nce"), ("--data", "digits"), ("--image-size", "8")):
        (problem,) = refused("check", "digits", *options)
        assert problem == "A data set is checked by itself: leave out all options but --only."
    assert "no promise called 'builds'" in refused("check", "digits", "--only", "builds")[0]


def test_they_are_explained(run: Run) -> None:
    text = run("check", "--explain", "--only", "labels-are-in-range").stdout
    assert text.startswith("labels-are-in-range\n    Labels are int64 from 0 on")
