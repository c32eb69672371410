from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from coview.data.base import IMAGENET_MEAN, IMAGENET_STD, DataSettings
from coview.data.sources.folder import Folder
from coview.errors import CoviewError, RequestError


def write(root: Path, *names: str, size: tuple[int, int] = (8, 8), shade: int = 100) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (shade, 0, 255)).save(root / name)


def many(label: str, count: int = 10) -> list[str]:
    return [f"{label}/{number}.png" for number in range(count)]


def test_class_folders_with_a_hold_out(tmp_path: Path) -> None:
    write(tmp_path, *many("b"), *many("a"), *many("c/deeper/still"))
    data = Folder(str(tmp_path)).load(DataSettings())
    assert data.name == f"folder:{tmp_path}" and data.classes == ("a", "b", "c")
    assert (data.size, data.channels, data.labelled) == (8, 3, True)
    assert (len(data.train), len(data.test)) == (24, 6)
    assert data.test.labels.bincount().tolist() == [2, 2, 2]
    assert not set(data.train.names) & set(data.test.names)
    assert data.train.names == tuple(sorted(data.train.names))
    for split in (data.train, data.test):
        letters = [data.classes[label] for label in split.labels.tolist()]
        assert letters == [name[0] for name in split.names]
    assert data.reference is data.train
    assert data.notes[0].startswith("6 of 30 images are held out for testing (fixed, stratified).")
    assert any(name.startswith("c/deeper/still/") for name in data.train.names)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    write(tmp_path, *(f"{n}.png" for n in range(10)))
    data = Folder(str(tmp_path)).load(DataSettings(holdout=0.3))
    assert (len(data.train), len(data.test)) == (7, 3)
    assert data.train.labels is None and not data.labelled and data.classes == ()


def test_nothing_is_held_out_that_cannot_be_measured_with(tmp_path: Path) -> None:
    write(tmp_path, *(f"{n}.png" for n in range(10)))
    data = Folder(str(tmp_path)).load(DataSettings())
    assert len(data.train) == 10 and data.test is None
    assert any("no labels to measure with" in note for note in data.notes)


def test_nothing_is_held_out_if_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, *many("a"), *many("b"))
    data = Folder(str(tmp_path)).load(DataSettings(holdout=0.0))
    assert len(data.train) == 20 and data.test is None and not data.labelled
    assert any("data.holdout = 0" in note for note in data.notes)


def test_images_belong_to_their_names(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, f"{number}.png", shade=number)
    data = Folder(str(tmp_path)).load(DataSettings(holdout=0.2))
    for split in (data.train, data.test):
        shades = split.resident[:, 0, 0, 0].tolist()
        assert [f"{shade}.png" for shade in shades] == list(split.names)


@pytest.mark.parametrize("held", ["test", "val"])
def test_split_folders(tmp_path: Path, held: str) -> None:
    write(tmp_path, "train/b/1.png", "train/c/2.png", f"{held}/a/3.png", f"{held}/c/4.png")
    data = Folder(str(tmp_path)).load(DataSettings())
    # A class of one split only must not shift the others' numbers.
    assert data.classes == ("a", "b", "c")
    assert data.train.names == ("train/b/1.png", "train/c/2.png")
    assert data.train.labels.tolist() == [1, 2] and data.test.labels.tolist() == [0, 2]
    assert "Classes without training images: a." in data.notes
    assert not any("held out" in note for note in data.notes)


def test_test_comes_before_val_unless_only_val_has_labels(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "test/b/4.png")
    assert Folder(str(tmp_path)).test.names == ("test/b/4.png",)
    (tmp_path / "test/b/4.png").rename(tmp_path / "test/4.png")
    assert Folder(str(tmp_path)).test.names == ("val/a/3.png",)


def test_a_flat_test_folder_beside_labelled_training_images(tmp_path: Path) -> None:
    write(tmp_path, *many("train/a"), *many("train/b"), "test/3.png", "test/4.png")
    data = Folder(str(tmp_path)).load(DataSettings())
    # As Kaggle's competitions have it: part of train is held out instead.
    assert (len(data.train), len(data.test)) == (16, 4) and data.labelled
    assert all(name.startswith("train/") for name in data.test.names)
    assert any(note.startswith("2 images in test/ are not used: they") for note in data.notes)
    assert data.summary["left_out"] == {"in test/": 2} and data.summary["found"] == 22
    # Version 0.1 trained on all of train, so this is another set of training images.
    (tmp_path / "test").rename(tmp_path.parent / "elsewhere")
    assert Folder(str(tmp_path)).load(DataSettings()).fingerprint != data.fingerprint


def test_splits_without_labels(tmp_path: Path) -> None:
    write(tmp_path, *(f"train/{n}.png" for n in range(4)), "test/3.png")
    data = Folder(str(tmp_path)).load(DataSettings())
    assert (len(data.train), data.test.names) == (4, ("test/3.png",)) and not data.labelled


@pytest.mark.parametrize("names", [("Train", "Test"), ("train", "valid"), ("training", "Val")])
def test_names_of_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    train, held = names
    write(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{held}/a/3.png", f"{held}/b/4.png")
    data = Folder(str(tmp_path)).load(DataSettings())
    assert data.classes == ("a", "b")
    assert data.test.names == (f"{held}/a/3.png", f"{held}/b/4.png")


def test_what_belongs_to_no_split_is_counted(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png", "test/5.png")
    write(tmp_path, "val/a/1.png", "val/b/2.png", "unlabeled/1.png", "cover.png")
    data = Folder(str(tmp_path)).load(DataSettings())
    assert data.test.names == ("test/a/3.png", "test/b/4.png")
    assert data.summary["left_out"] == {
        "in val/": 2,
        "in unlabeled/": 1,
        "beside train/": 1,
        "beside the classes of test/": 1,
    }
    assert data.summary["found"] == 9
    said = " ".join(data.notes)
    assert "2 images in val/ are not used: test/ is the test split" in said
    assert "1 images in unlabeled/ are left out" in said
    assert "1 images beside train/ are left out" in said


def test_a_folder_around_the_classes(tmp_path: Path) -> None:
    write(tmp_path, *many("flowers/rose"), *many("flowers/iris"), *many("__MACOSX/flowers/rose"))
    data = Folder(str(tmp_path)).load(DataSettings())
    assert data.classes == ("iris", "rose") and data.train.names[0].startswith("flowers/iris/")
    assert "The data are the folders in flowers." in data.notes
    write(
        tmp_path / "other", *(f"data/{part}/{c}/1.png" for part in ("train", "test") for c in "ab")
    )
    data = Folder(str(tmp_path / "other")).load(DataSettings())
    assert data.test.names == ("data/test/a/1.png", "data/test/b/1.png")


def test_images_beside_the_classes_are_trained_on(tmp_path: Path) -> None:
    write(tmp_path, *many("a"), *many("b"))
    for number in range(3):
        write(tmp_path, f"{number}.png", shade=200 + number)
    for settings in (DataSettings(), DataSettings(size=300, resident_mib=1)):
        data = Folder(str(tmp_path)).load(settings)
        assert (len(data.train), len(data.reference), len(data.test)) == (19, 16, 4)
        assert data.train.names[-3:] == ("0.png", "1.png", "2.png")
        assert data.train.images[18].shape == data.test.images[0].shape
        assert data.train.images[17][0, 0, 0] == 201
        assert data.train.labels is None and data.labelled
        assert data.reference.names == data.train.names[:16]
        assert data.reference.labels.bincount().tolist() == [8, 8]
        assert data.train.rows.tolist()[-3:] == [20, 21, 22]
        assert torch.equal(data.reference.images[5], data.train.images[5])
    assert any("3 images beside the class folders have no labels" in n for n in data.notes)


def test_images_beside_a_single_folder(tmp_path: Path) -> None:
    write(tmp_path, *many("more"), *(f"{n}.png" for n in range(5)))
    data = Folder(str(tmp_path)).load(DataSettings())
    assert len(data.train) == 15 and data.train.labels is None and not data.labelled


def test_whatever_pillow_reads_is_an_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), (200, 0, 0))
    for ending in ("jfif", "jpe", "tga", "ppm", "jp2", "avif", "ico", "pcx", "TIF", "qoi"):
        image.save(tmp_path / f"a.{ending}")
    image.save(tmp_path / "IMG_0001", "JPEG")
    (tmp_path / "README").write_text("Pictures of red.")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    data = Folder(str(tmp_path)).load(DataSettings(on_bad_image="stop"))
    assert len(data.train) == 11 and (data.train.resident[:, 0] > 190).all()
    expected = {".csv": 1, ".eps": 1, "without an ending": 1}
    assert data.summary["left_out"] == expected and data.summary["found"] == 11
    (note,) = [note for note in data.notes if "no images" in note]
    assert note.endswith(": 1 .csv, 1 .eps, 1 without an ending.")


def test_empty_folders_are_no_classes_and_are_named(tmp_path: Path) -> None:
    write(tmp_path, *many("a"), *many("b"))
    (tmp_path / "c").mkdir()
    data = Folder(str(tmp_path)).load(DataSettings())
    assert data.classes == ("a", "b") and "Folders without images: c." in data.notes


def test_the_summary_counts_labels_modes_and_sizes(tmp_path: Path) -> None:
    write(tmp_path, *many("a", 3), *many("b", 2))
    Image.new("L", (20, 9)).save(tmp_path / "b/grey.png")
    summary = Folder(str(tmp_path)).load(DataSettings()).summary
    assert summary["labels"] == {"a": 3, "b": 3} and summary["modes"] == {"RGB": 5, "L": 1}
    assert (summary["smallest"], summary["largest"]) == ([8, 8], [20, 9])


def test_a_train_folder_alone_is_split(tmp_path: Path) -> None:
    write(tmp_path, *(f"train/{name}" for name in many("a") + many("b")))
    data = Folder(str(tmp_path)).load(DataSettings())
    assert data.classes == ("a", "b") and (len(data.train), len(data.test)) == (16, 4)


def test_a_train_among_other_classes_is_a_class(tmp_path: Path) -> None:
    write(tmp_path, *many("train"), *many("car"))
    assert Folder(str(tmp_path)).load(DataSettings()).classes == ("car", "train")


def test_one_class_folder_counts_as_unlabelled(tmp_path: Path) -> None:
    write(tmp_path, *many("all"))
    data = Folder(str(tmp_path)).load(DataSettings())
    assert data.train.labels is None and data.classes == ()
    assert any("only one class folder" in note for note in data.notes)


def test_only_images_count(tmp_path: Path) -> None:
    write(tmp_path, *many("a", 3), *many("b", 3), "loose.png", ".hidden/1.png", "a/._1.png")
    (tmp_path / "a/notes.txt").write_text("no image")
    (tmp_path / "b/4.JPG").write_bytes((tmp_path / "b/1.png").read_bytes())
    (tmp_path / "a/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a/folder.png").mkdir()
    folder = Folder(str(tmp_path))
    assert folder.train.names == (*many("a", 3), *many("b", 3), "b/4.JPG")
    assert folder.train.beside.names == ("loose.png",)
    assert folder.load(DataSettings()).summary["left_out"] == {".txt": 1, "hidden": 1}


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "root", "a/1.png", "b/2.png")
    write(tmp_path / "elsewhere", "3.png")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/b/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "root/b")
    names = Folder(str(tmp_path / "root")).train.names
    assert names == ("a/1.png", "b/2.png", "b/c/3.png")


@pytest.mark.parametrize(
    ("sizes", "native"),
    [
        ([(32, 32)] * 3, 32),
        ([(48, 32), (32, 40)], 32),
        ([(64, 64)], 64),
        ([(65, 65)], 256),
        ([(32, 32), (33, 33)], 256),
    ],
)
def test_native_size(tmp_path: Path, sizes: list[tuple[int, int]], native: int) -> None:
    for number, size in enumerate(sizes):
        write(tmp_path, f"{number}.png", size=size)
    folder = Folder(str(tmp_path))
    assert folder.native_size() == native
    assert folder.load(DataSettings()).size == native


def test_size_and_channels_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, *many("a", 5), *many("b", 5), size=(20, 30))
    data = Folder(str(tmp_path)).load(DataSettings(size=12, channels=1))
    assert data.train.resident.shape == (8, 1, 12, 12)
    assert any(note.startswith("Images are resized to 12 pixels per side (") for note in data.notes)


def test_mean_and_std(tmp_path: Path) -> None:
    for number, shade in enumerate((0, 255) * 5):
        Image.new("L", (8, 8), shade).save(tmp_path / f"{number}.png")
    colour = Folder(str(tmp_path)).load(DataSettings())
    assert (colour.mean, colour.std) == (IMAGENET_MEAN, IMAGENET_STD)
    grey = Folder(str(tmp_path)).load(DataSettings(channels=1))
    share = grey.train.resident.float().mean().item() / 255
    assert grey.mean == pytest.approx((share,))
    assert grey.std == pytest.approx(((share - share**2) ** 0.5,))


def test_large_sets_are_decoded_when_asked(tmp_path: Path) -> None:
    write(tmp_path, *many("a"), *many("b"), size=(150, 150))
    small, large = (
        Folder(str(tmp_path)).load(DataSettings(size=size, resident_mib=1)) for size in (8, 140)
    )
    assert small.train.resident is not None
    assert large.train.resident is None and len(large.train) == 16
    assert large.train.images[3].shape == (3, 140, 140)
    assert large.train.images[3].dtype == torch.uint8
    assert large.train.names == small.train.names
    assert torch.equal(large.train.labels, small.train.labels)


def test_fingerprint_follows_names_and_sizes(tmp_path: Path) -> None:
    write(tmp_path, *many("a", 3), *many("b", 3))
    prints = [Folder(str(tmp_path)).load(DataSettings()).fingerprint for _ in range(2)]
    assert prints[0] == prints[1]
    os.utime(tmp_path / "a/1.png", (0, 0))
    (tmp_path / "a/1.png").rename(tmp_path / "a/11.png")
    prints.append(Folder(str(tmp_path)).load(DataSettings()).fingerprint)
    with (tmp_path / "b/1.png").open("ab") as file:
        file.write(b"\0")
    prints.append(Folder(str(tmp_path)).load(DataSettings()).fingerprint)
    assert len(set(prints)) == 3


def test_a_damaged_image_ends_the_loading(tmp_path: Path) -> None:
    write(tmp_path, *many("a"), *many("b"))
    (tmp_path / "b/5.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(CoviewError, match=r"b/5\.png cannot be decoded") as caught:
        Folder(str(tmp_path)).load(DataSettings(size=8, on_bad_image="stop"))
    assert not isinstance(caught.value, RequestError)


def test_a_damaged_header(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"broken")
    with pytest.raises(CoviewError, match=r"0\.png cannot be decoded"):
        Folder(str(tmp_path)).native_size()


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="folder needs a path: write folder:PATH"):
        Folder(None)
    with pytest.raises(RequestError, match=r"There is no folder .*/nowhere\."):
        Folder(str(tmp_path / "nowhere"))
    with pytest.raises(
        RequestError, match=r"holds no images \(avif, bmp, gif, jfif, jpeg, jpg, npy"
    ):
        Folder(str(tmp_path))
    write(tmp_path, "train/a/1.png")
    with pytest.raises(RequestError, match=r"1\.png is a file; .* needs a folder"):
        Folder(str(tmp_path / "train/a/1.png"))
    (tmp_path / "test").mkdir()
    with pytest.raises(RequestError, match="/test holds no images"):
        Folder(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(RequestError, match="/a cannot be read: Permission denied"):
        Folder(str(tmp_path))
    (tmp_path / "a").chmod(0o700)
