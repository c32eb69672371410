"""What is said of data that nothing can be learned from, or that accuracies do not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from coview.data.base import DataSettings, ImageData, Split
from coview.data.doubts import alike, too_small
from coview.data.sources import open_source
from coview.data.splits import statistics


def loaded(root: Path, **settings: Any) -> ImageData:
    return open_source(str(root), DataSettings()).load(DataSettings(**settings), 0)


def noise(count: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8, generator=generator)


def told(images: Tensor) -> list[str]:
    split = Split(images)
    return list(alike(split, statistics(split)[1]))


def test_images_that_are_all_the_same() -> None:
    assert told(torch.zeros(40, 3, 4, 4, dtype=torch.uint8)) == [
        "The 32 images that were looked at are all the same, so nothing can be learned from them. "
        "Is it the right folder, and data.range that of these values?"
    ]
    copies = noise(1).expand(5, -1, -1, -1)
    (said,) = told(copies)
    assert said.startswith("The 5 images that were looked at are all the same")
    assert told(torch.cat([copies, noise(2)[1:]])) == []
    assert told(noise(1)) == [], "one image has nothing to be the same as"


def test_a_channel_that_never_changes() -> None:
    images = noise(6, 4)
    images[:, 3] = 17
    assert told(images) == ["Channel 4 of 4 has one value in all that was looked at."]
    images[5, 3, 0, 0] = 18
    assert told(images) == []


def test_a_folder_of_black_images(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    data = loaded(tmp_path)
    assert any("all the same" in note for note in data.notes)
    assert any("all the same" in note for note in data.remarks), "evaluation says it too"


def test_what_stands_in_for_an_unreadable_image_is_no_copy(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    data = loaded(tmp_path, bad_limit=1.0)
    assert not any("all the same" in note for note in data.notes)


def test_a_class_too_small_for_its_split(tmp_path: Path) -> None:
    for name, count in {"cat": 10, "dog": 10, "emu": 1}.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = noise(10)[number].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    said = (
        "1 of 3 classes have no image to test on, so no accuracy counts them: emu (1 to train on)."
    )
    data = loaded(tmp_path)
    # A run says so; what only reads images, or has others to compare them with, does not.
    assert said in data.notes and said not in data.remarks
    assert not any("classes have" in note for note in loaded(tmp_path, holdout=0.0).notes)


def test_classes_that_only_the_test_images_have() -> None:
    images = noise(12)
    trained = Split(images, torch.tensor([0] * 6 + [-1] * 6))
    tested = Split(images, torch.tensor([0, 1, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7]))
    (said,) = too_small(trained, tested, "abcdefgh")
    assert said == (
        "7 of 8 classes have no image to learn them from, so they are never recognised: "
        "b (2 to test on), c (1 to test on), d (1 to test on), e (1 to test on), f (1 to test on) "
        "and 2 more."
    )


@given(st.lists(st.integers(-1, 4), min_size=1), st.lists(st.integers(-1, 4), min_size=1))
@pytest.mark.filterwarnings("error")
def test_each_class_of_one_side_alone_is_counted(trained: list[int], tested: list[int]) -> None:
    splits = [Split(noise(len(labels)), torch.tensor(labels)) for labels in (trained, tested)]
    several = [
        Split(noise(len(labels)), multi_hot=torch.tensor(labels)[:, None] == torch.arange(5))
        for labels in (trained, tested)
    ]
    a, b = set(trained) - {-1}, set(tested) - {-1}
    expected = [str(len(one)) for one in (a - b, b - a) if one]
    for reference, test in (splits, several):
        assert [note.split()[0] for note in too_small(reference, test, "abcde")] == expected
    assert list(too_small(splits[0], None, "abcde")) == []
    assert list(too_small(Split(noise(1)), splits[1], "abcde")) == []
