from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from coview.data.base import DataSettings
from coview.data.sources.arrays import Objects, as_images, from_object
from coview.errors import RequestError

DEFAULT = DataSettings()
COLOUR = torch.arange(20 * 3 * 8 * 8).remainder(251).view(20, 3, 8, 8).to(torch.uint8)
LABELS = torch.arange(20) % 2


def test_labelled_tensor() -> None:
    data = from_object((COLOUR, LABELS), DEFAULT)
    assert (data.name, data.size, data.channels, data.classes) == ("array", 8, 3, ("0", "1"))
    assert (len(data.train), len(data.test)) == (16, 4) and data.labelled
    assert data.test.labels.bincount().tolist() == [2, 2]
    where = {image.numpy().tobytes(): n for n, image in enumerate(COLOUR)}
    for split in (data.train, data.test):
        rows = [where[image.numpy().tobytes()] for image in split.images]
        assert split.labels.tolist() == [row % 2 for row in rows]


LAYOUTS: dict[str, Any] = {
    "N, H, W": COLOUR[:, 0],
    "NCHW array": COLOUR.numpy(),
    "NHWC tensor": COLOUR.permute(0, 2, 3, 1),
    "NHWC array": COLOUR.permute(0, 2, 3, 1).numpy(),
    "floats": COLOUR / 255,
    "doubles": (COLOUR / 255).double().numpy(),
    "halves, last": (COLOUR / 255).permute(0, 2, 3, 1).half(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    expected = COLOUR[:, :1] if layout == "N, H, W" else COLOUR
    seen = as_images(LAYOUTS[layout])
    assert torch.equal(seen, expected) and seen.is_contiguous()


def test_a_layout_that_can_be_read_in_two_ways() -> None:
    both = torch.arange(2 * 3 * 5 * 3, dtype=torch.uint8).view(2, 3, 5, 3)
    assert as_images(both).shape == (2, 3, 5, 3)
    assert torch.equal(as_images(both.numpy()), both.permute(0, 3, 1, 2))


def test_floats_are_rounded() -> None:
    floats = torch.tensor([0.0, 0.4, 0.6, 99.6, 254.6, 255.0]).view(1, 2, 3) / 255
    assert as_images(floats).flatten().tolist() == [0, 0, 1, 100, 255, 255]


def test_awkward_arrays() -> None:
    array = COLOUR.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(as_images(array), COLOUR)
    assert torch.equal(as_images(array[:, :, ::-1]), COLOUR.flip(2))
    assert torch.equal(as_images((COLOUR / 255).requires_grad_()), COLOUR)


@attrs.frozen
class Records:
    """A map-style data set."""

    items: list[Any]
    classes: Any = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


def pictures(mode: str = "RGB") -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()).convert(mode) for image in COLOUR]


@pytest.mark.parametrize("kind", ["picture", "tensor", "array", "floats"])
@pytest.mark.parametrize("workers", [0, 2])
def test_map_style_data_sets(kind: str, workers: int) -> None:
    images: Any = {
        "picture": pictures(),
        "tensor": list(COLOUR),
        "array": list(COLOUR.permute(0, 2, 3, 1).numpy()),
        "floats": list(COLOUR / 255),
    }[kind]
    items = [(image, label, "more") for image, label in zip(images, LABELS, strict=True)]
    data = from_object(Records(items, ["cat", "dog"]), DEFAULT, "mine", workers)
    expected = from_object((COLOUR, LABELS), DEFAULT)
    assert data.name == "mine" and data.classes == ("cat", "dog")
    assert torch.equal(data.train.images, expected.train.images)
    assert torch.equal(data.test.labels, expected.test.labels)


def test_tensor_dataset_and_plain_lists() -> None:
    expected = from_object((COLOUR, LABELS), DEFAULT)
    data = from_object(TensorDataset(COLOUR, LABELS), DEFAULT)
    assert torch.equal(data.test.images, expected.test.images)
    assert torch.equal(data.test.labels, expected.test.labels)
    alone = from_object(TensorDataset(COLOUR), DEFAULT)
    assert alone.train.labels is None and not alone.labelled
    assert from_object(pictures(), DEFAULT).train.labels is None


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB", 3), ("RGBA", 3), ("P", 3), ("L", 1), ("LA", 1), ("1", 1)]
)
def test_channels_follow_the_pictures(mode: str, channels: int) -> None:
    assert from_object(pictures(mode), DEFAULT).channels == channels
    chosen = from_object(pictures(mode), DataSettings(channels=4 - channels))
    assert chosen.train.resident.shape[1] == chosen.channels == 4 - channels


class Targets:
    """Ten grey items with any targets."""

    def __init__(self, target: Callable[[int], Any]) -> None:
        self.target = target

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> tuple[torch.Tensor, Any]:
        return torch.full((3, 8, 8), row, dtype=torch.uint8), self.target(row)


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (lambda row: torch.tensor([row % 2, 1, 2]), [0, 1, 2]),
        (lambda row: np.array([0.5, row]), [0.5, 0.0]),
        (lambda row: {"boxes": [row]}, {"boxes": [0]}),
        (lambda row: [f"tag{row}", 7], ["tag0", 7]),
        (lambda row: [-1] * row, []),
        (lambda row: row / 7, 0.0),
        (lambda row: [1] * row, []),
    ],
)
def test_targets_that_are_no_classes_are_fields(target: Callable[[int], Any], kept: Any) -> None:
    data = from_object(Targets(target), DataSettings())
    assert len(data.train) == 10 and not data.labelled and data.train.labels is None
    first = data.train.field("labels")[0]
    assert (first.tolist() if isinstance(first, torch.Tensor) else first) == kept
    assert any("not one class per item" in note for note in data.notes)


@pytest.mark.parametrize(
    "target",
    [lambda row: torch.tensor([row % 2, row == 4, 0]), lambda row: np.array([row % 2, row == 4, 0]),
     lambda row: [row % 2, int(row == 4), 0], lambda row: [bool(row % 2), row == 4, False],
     lambda row: torch.tensor([row % 2, float(row == 4), 0.0])],
)  # fmt: skip
def test_targets_of_zeros_and_ones_are_several_classes(target: Callable[[int], Any]) -> None:
    data = from_object(Targets(target), DataSettings())
    assert data.multi_label and not data.labelled and data.classes == ("0", "1", "2")
    assert (len(data.train), len(data.test)) == (8, 2)
    for split in (data.train, data.test):
        rows = split.images[:, 0, 0, 0].tolist()
        assert split.multi_hot.tolist() == [[row % 2 == 1, row == 4, False] for row in rows]
        assert split.field("labels")[0].tolist() == [rows[0] % 2, rows[0] == 4, 0]
    assert any("several of 3 classes each" in note for note in data.notes)


@pytest.mark.parametrize("number", [int, str])
@pytest.mark.parametrize("kind", [list, tuple, set])
def test_targets_that_list_classes(kind: Callable[..., Any], number: Callable[..., Any]) -> None:
    def target(row: int) -> Any:
        return kind(number(7 + n) for n in range(row % 4))

    data = from_object(Targets(target), DataSettings())
    assert data.multi_label and data.classes == ("7", "8", "9")
    for split in (data.train, data.test):
        rows = split.images[:, 0, 0, 0].tolist()
        assert split.multi_hot.tolist() == [[row % 4 > n for n in range(3)] for row in rows]


def test_several_classes_in_arrays_and_dicts() -> None:
    hot = np.arange(30).reshape(10, 3) % 2
    images = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    tags = [["cat", "dog"][: n % 3] for n in range(10)]
    for data in ((images, hot), {"images": images, "labels": hot}):
        found = from_object(data, DataSettings())
        assert torch.equal(found.train.multi_hot, torch.tensor(hot == 1)[found.train.rows])
    found = from_object({"images": images, "labels": tags}, DataSettings(holdout=0))
    assert found.classes == ("cat", "dog") and found.train.field("labels") == tags
    assert found.train.multi_hot.sum(dim=0).tolist() == [6, 3]
    with pytest.raises(RequestError, match="one value of 'labels' for each of 10 images, not 9"):
        from_object((images, hot[:9]), DataSettings())
    with pytest.raises(RequestError, match="'labels' for each of 10 images, not 1"):
        from_object((images, torch.tensor(3)), DataSettings())
    named = Targets(lambda row: [row % 2, 1, 0])
    named.classes = ["cat", "dog", "cow"]
    assert from_object(named, DataSettings()).classes == ("cat", "dog", "cow")


@pytest.mark.parametrize(
    "target",
    [lambda row: "ab"[row % 2], lambda row: np.int64(row % 2), lambda row: torch.tensor([row % 2]),
     lambda row: float(row % 2)],
)  # fmt: skip
def test_targets_that_are_classes(target: Callable[[int], Any]) -> None:
    data = from_object(Targets(target), DataSettings())
    assert (len(data.train), len(data.test), len(data.classes)) == (8, 2, 2)


def test_pictures_of_several_sizes() -> None:
    mixed = Records([Image.new("RGB", (30 + n, 40)) for n in range(10)])
    assert Objects(mixed).native_size() == 256
    assert from_object(mixed, DataSettings(size=16)).train.resident.shape == (10, 3, 16, 16)
    same = Records([Image.new("RGB", (30, 40))] * 10)
    assert Objects(same).native_size() == 30


def test_large_data_sets_stay_where_they_are() -> None:
    settings = DataSettings(size=200, resident_mib=1)
    items = Records(list(zip(pictures(), ["b", "a"] * 10, strict=True)))
    for thing in (items, (COLOUR, ["b", "a"] * 10)):
        data = from_object(thing, settings)
        assert data.train.resident is None and data.train.images[0].shape == (3, 200, 200)
        assert data.classes == ("a", "b") and data.test.labels.bincount().tolist() == [2, 2]
        small = from_object(thing, DEFAULT)
        assert torch.equal(small.train.labels, data.train.labels)


def test_large_arrays_are_not_moved_to_the_device() -> None:
    images = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    assert from_object(images, DataSettings(resident_mib=1)).train.resident is None
    assert from_object(images, DataSettings(resident_mib=2)).train.resident is not None


@pytest.mark.parametrize("resident_mib", [1, 100])
def test_fingerprint_follows_the_data(resident_mib: int) -> None:
    settings = DataSettings(size=200, resident_mib=resident_mib)
    other = COLOUR.clone()
    other[0] += 1
    things = [COLOUR, other, (COLOUR, LABELS), (COLOUR, 1 - LABELS), COLOUR[:19]]
    things += [Records(list(COLOUR[:18])), Records(list(other[:18]))]
    prints = [from_object(thing, settings).fingerprint for thing in things]
    assert len(set(prints)) == len(things)
    assert from_object(COLOUR.clone(), settings).fingerprint == prints[0]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([7, 3] * 10, ("3", "7")), (["dog", "cat"] * 10, ("cat", "dog")), ([True, False] * 10, None)],
)
def test_labels_are_numbered(labels: list[Any], classes: tuple[str, ...] | None) -> None:
    data = from_object((COLOUR, labels), DEFAULT)
    assert data.classes == (classes or ("False", "True"))
    assert data.train.labels.dtype == torch.int64 and data.test.labels.tolist().count(1) == 2


def generator() -> Iterator[int]:
    yield 0


CAPTIONS = [f"image {number}" for number in range(len(COLOUR))]


@pytest.mark.parametrize("images", [COLOUR, Records(COLOUR)], ids=["tensor", "data set"])
def test_a_dict_has_images_labels_and_fields(images: Any) -> None:
    many_hot = torch.eye(len(COLOUR))
    data = from_object(
        {"images": images, "labels": LABELS, "captions": CAPTIONS, "places": many_hot.numpy()},
        DEFAULT,
    )
    assert data.test is not None and len(data.train) + len(data.test) == len(COLOUR)
    for part in (data.train, data.test):
        assert part.field("captions") == [CAPTIONS[row] for row in part.rows]
        assert torch.equal(part.field("places"), many_hot[part.rows])
        assert torch.equal(part.field("labels"), LABELS[part.rows])
    several = from_object({"images": images, "labels": many_hot}, DEFAULT)
    assert several.train.labels is None and torch.equal(several.train.field("labels"), many_hot)


RAMP = torch.linspace(0, 1, 16 * 16).reshape(1, 1, 16, 16).repeat(20, 1, 1, 1)
EXPECTED = (RAMP * 255).round().to(torch.uint8)
RANGES: dict[str, tuple[Any, str]] = {
    "12 bits in 16": ((RAMP * 4095).round().to(torch.uint16), "0,4095"),
    "12 bits in 64": ((RAMP * 4095).round().long().numpy(), "0,4095"),
    "Hounsfield": ((RAMP * 2000 - 1000).to(torch.int16), "-1000,1000"),
    "float": (RAMP * 3 - 1, "-1,2"),
    "half": ((RAMP * 8).bfloat16(), "0,8"),
}


@pytest.mark.parametrize("kind", RANGES)
def test_a_range_says_what_values_mean(kind: str) -> None:
    values, window = RANGES[kind]
    settings = DataSettings(range=window, holdout=0)
    many, items = (from_object(data, settings).train.resident for data in (values, Records(values)))
    assert many is not None and items is not None
    off = 4 if kind == "half" else 1
    assert (many.int() - EXPECTED.int()).abs().max() <= off
    assert torch.equal(many[:, 0], items[:, 0])


@pytest.mark.parametrize("kind", ["12 bits in 16", "Hounsfield"])
def test_values_of_16_bits_are_measured_and_it_is_said(kind: str) -> None:
    values, _ = RANGES[kind]
    data = from_object(values, DataSettings(holdout=0))
    assert len(data.train.resident.unique()) > 200
    assert any("To choose: --set data.range=LOW,HIGH" in note for note in data.notes)


@pytest.mark.parametrize("kind", ["float", "12 bits in 64"])
def test_other_values_are_measured_when_asked(kind: str) -> None:
    values, _ = RANGES[kind]
    data = from_object(values, DataSettings(range="measure", holdout=0))
    assert (data.train.resident.int() - EXPECTED.int()).abs().max() <= 2


def test_dark_floats_stay_dark() -> None:
    data = from_object(RAMP / 10, DataSettings(holdout=0))
    assert torch.equal(data.train.resident, (RAMP / 10 * 255).round().to(torch.uint8))


BAD: list[tuple[Any, str]] = [
    (3, r"Data can be an array .*, not int\."),
    ({"image": COLOUR}, "not a dict of 'image'"),
    ({"images": COLOUR, "captions": ["a"]}, "one value of 'captions' for each of 20 images, not 1"),
    ({"images": COLOUR, "captions": "a"}, "'captions' must have one value per image, not be str"),
    ("text", "not str"),
    (generator(), "not generator"),
    ((COLOUR, LABELS, 1), "not a tuple of 3"),
    ((pictures(), LABELS), "not tuple"),
    (attrs.make_class("Endless", [], bases=(torch.utils.data.Dataset,))(), "has no length"),
    (COLOUR[:0], "hold no images"),
    ([], "hold no images"),
    (COLOUR.int(), "must be uint8, or float in .*, not int32"),
    (COLOUR.numpy().astype(object), "must be uint8 or float, not object"),
    (COLOUR > 3, "not bool"),
    (COLOUR.float(), r"must be in \[0, 1\], but run from 0 to 250"),
    (COLOUR / 255 - 1, "but run from -1"),
    (COLOUR / torch.zeros(()), r"must be in \[0, 1\]"),
    (torch.zeros(4, 5, 6, 7), r"1 or 3 channels, not \(4, 5, 6, 7\)"),
    (torch.zeros(4, 5), r"must have the shape .*, not \(4, 5\)"),
    (torch.zeros(4, 3, 0, 7), "must have the shape"),
    ((COLOUR, LABELS[:5]), r"one value of 'labels' for each of 20 images, not 5"),
    ((COLOUR, LABELS - 1), "whole numbers from 0"),
    ((COLOUR, LABELS / 2), "whole numbers from 0"),
    (Records(["a", "b"]), "image is of type str"),
    (Records([{"image": COLOUR[0]}]), "image is of type dict"),
    (Records([()]), "image is of type tuple"),
    (Records([(COLOUR[0], 1), (COLOUR[1], None)]), "1 of 2 images have no label"),
    (Records([Image.fromarray(np.full((8, 8), -1, np.int32))]), "An image cannot be used: its va"),
]


@pytest.mark.parametrize(("thing", "sentence"), BAD, ids=[text for _, text in BAD])
def test_what_cannot_be_used(thing: Any, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        from_object(thing, DEFAULT)


def test_a_bad_item_in_a_worker_is_one_sentence() -> None:
    items = Records([*COLOUR[:10], "text", *COLOUR[10:]])
    with pytest.raises(RequestError, match=r"^An item must be .*, but its image is of type str\.$"):
        from_object(items, DEFAULT, workers=1)


def test_fields_are_part_of_the_fingerprint() -> None:
    def fingerprint(**fields: Any) -> str:
        data = {"images": COLOUR, **fields}
        return from_object(data, DataSettings()).fingerprint

    numbers = torch.arange(len(COLOUR))
    found = [
        fingerprint(),
        fingerprint(captions=CAPTIONS),
        fingerprint(captions=[*CAPTIONS[:-1], "another"]),
        fingerprint(texts=CAPTIONS),
        fingerprint(captions=numbers),
        fingerprint(captions=numbers.flip(0)),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint(captions=numbers.numpy()) == found[4]
    assert fingerprint(captions=np.array(CAPTIONS)) == found[1]
    assert fingerprint(captions=tuple(CAPTIONS)) == found[1]
