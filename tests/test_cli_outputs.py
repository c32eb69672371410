"""What becomes of a run: evaluate, embed, views, and the backbone in Python."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import coview
from coview.recipes.configure import Changes
from coview.training.loop import fit
from coview.training.start import Request, start

Run = Callable[..., Any]


@attrs.frozen
class Trained:
    """A run of each kind of data."""

    idx: Path
    photos: Path
    digits: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, idx: Path, photos: Path) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    for name, data in (("idx", f"idx:{idx}"), ("photos", str(photos)), ("digits", "digits")):
        coview.train(
            "simclr",
            data,
            out=folder / name,
            batch_size=16,
            backbone="resnet10-quarter",
            max_steps=2,
            device="cpu",
            progress=False,
            evaluate=name != "digits",
        )
    return Trained(folder / "idx", folder / "photos", folder / "digits")


def read_idx(folder: Path, stem: str) -> torch.Tensor:
    raw = (folder / f"{stem}-images-idx3-ubyte").read_bytes()
    values = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 16, 16)
    return torch.from_numpy(values.copy()).float() / 255


def features(path: Path, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return coview.load_backbone(path)(images).numpy()


def test_knn_of_a_run_is_what_the_run_measured(run: Run, trained: Trained) -> None:
    document = run("evaluate", "knn", trained.idx, "--json").json
    lines = (trained.idx / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = json.loads(lines[-1])["knn"]
    assert {key: document[key] for key in logged} == logged
    assert document["weights"] == str(trained.idx) and document["data"].startswith("idx:")
    assert (document["train_images"], document["test_images"]) == (48, 24)
    assert (document["k"], document["temperature"]) == (16, 0.07)
    text = run("evaluate", "knn", trained.idx).stdout
    assert f"kNN top-1 {100 * document['top1']:.1f} %" in text


def test_knn_is_the_vote_of_the_neighbours(run: Run, idx: Path, trained: Trained) -> None:
    options = ("-k", 5, "--temperature", 0.1, "--json")
    document = run("evaluate", "knn", trained.idx, *options).json
    train = features(trained.idx, read_idx(idx, "train")).astype(np.float64)
    test = features(trained.idx, read_idx(idx, "t10k")).astype(np.float64)
    right = 0
    for number, query in enumerate(test):
        near = []
        for row, other in enumerate(train):
            cosine = query @ other / (np.linalg.norm(query) * np.linalg.norm(other))
            near.append((cosine, row % 3))
        votes = np.zeros(3)
        for cosine, label in sorted(near, reverse=True)[:5]:
            votes[label] += np.exp(cosine / 0.1)
        right += int(votes.argmax()) == number % 3
    assert document["top1"] == pytest.approx(right / 24) and document["k"] == 5


def test_knn_takes_a_weights_file_and_other_data(
    run: Run, refused: Run, idx: Path, trained: Trained
) -> None:
    file = trained.photos / "backbone.safetensors"
    assert refused("evaluate", "knn", file) == [
        "Name the data (--data, in Python data=): only a run records what it was trained on."
    ]
    # The grey images of 16 pixels become the colour images of 24 that the run was trained on.
    document = run("evaluate", "knn", file, "--data", f"idx:{idx}", "--json").json
    assert document["train_images"] == 48 and 0 <= document["top1"] <= 1


def test_embeddings_are_in_the_order_of_the_files(run: Run, idx: Path, trained: Trained) -> None:
    expected = np.concatenate(
        [features(trained.idx, read_idx(idx, stem)) for stem in ("train", "t10k")]
    )
    said = run("embed", trained.idx, "--out", "all.npy", "--json").json
    assert said == {
        "out": "all.npy",
        "images": 72,
        "width": 128,
        "columns": ["embeddings", "labels", "classes", "split"],
    }
    array = np.load("all.npy")
    assert array.shape == (72, 128) and array.dtype == np.float32
    np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
    run("embed", trained.idx, "--out", "test.npz", "--split", "test", "--batch-size", 5)
    with np.load("test.npz") as table:
        assert sorted(table) == ["classes", "embeddings", "labels", "split"]
        np.testing.assert_allclose(table["embeddings"], expected[48:], rtol=1e-4, atol=1e-5)
        assert table["labels"].tolist() == [n % 3 for n in range(24)]
        assert set(table["split"].tolist()) == {"test"}
    run("embed", trained.idx, "--out", "t.safetensors", "--split", "train")
    tensors = load_file("t.safetensors")
    assert sorted(tensors) == ["embeddings", "labels"]
    np.testing.assert_allclose(tensors["embeddings"], expected[:48], rtol=1e-4, atol=1e-5)
    assert tensors["labels"].tolist() == [n % 3 for n in range(48)]


def test_embeddings_of_a_folder_carry_names_in_their_order(
    run: Run, photos: Path, trained: Trained
) -> None:
    assert "60 embeddings of width 128" in run("embed", trained.photos, "--out", "a.npz").stdout
    names = sorted(str(p.relative_to(photos)) for p in photos.rglob("*") if p.is_file())
    with np.load("a.npz") as table:
        assert table["names"].tolist() == names
        assert table["labels"].tolist() == [int(name[5]) for name in names]
        assert np.bincount(table["split"] == "test").tolist() == [48, 12]
        got = table["embeddings"]
    pixels = [np.asarray(Image.open(photos / name).convert("RGB")) for name in names]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_allclose(got, features(trained.photos, images), rtol=1e-3, atol=1e-4)


def test_embeddings_as_a_table_for_a_spreadsheet(
    run: Run, photos: Path, trained: Trained, tmp_path: Path
) -> None:
    run("embed", trained.photos, "--data", photos, "--out", "e.npz")
    run("embed", trained.photos, "--data", photos, "--out", "e.csv")
    with np.load("e.npz") as table, Path("e.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
        assert list(lines[0])[:5] == ["labels", "classes", "names", "split", "e0"]
        assert [line["names"] for line in lines] == table["names"].tolist()
        assert all(line["names"].startswith(line["classes"] + "/") for line in lines)
        values = [[float(line[f"e{n}"]) for n in range(128)] for line in lines]
        assert np.array_equal(np.float32(values), table["embeddings"])


def test_embeddings_of_images_beside_the_classes_keep_the_others_labels(
    run: Run, photos: Path, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "more"
    shutil.copytree(photos, folder)
    for number in range(2):
        shutil.copy(photos / "class0" / "000.jpg", folder / f"{number}.jpg")
    run("embed", trained.photos, "--data", folder, "--out", "e.npz")
    with np.load("e.npz") as table:
        assert table["names"].tolist()[-2:] == ["0.jpg", "1.jpg"]
        assert table["labels"].tolist()[-2:] == [-1, -1]
        assert np.bincount(table["labels"][:-2]).tolist() == [20, 20, 20]
        assert table["classes"].tolist()[-3:] == ["class2", "", ""]


def test_embeddings_of_a_set_that_was_split_are_in_its_own_order(
    run: Run, trained: Trained
) -> None:
    from sklearn.datasets import load_digits

    run("embed", trained.digits, "--out", "d.npz")
    with np.load("d.npz") as table:
        assert table["embeddings"].shape == (1797, 128)
        assert table["labels"].tolist() == load_digits().target.tolist()
        assert np.bincount(table["split"] == "test").tolist() == [1438, 359]


def test_parquet_without_pyarrow_says_what_to_install(
    run: Run, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = run("embed", trained.idx, "--out", "a.parquet", status=1)
    assert answer.errors == [".parquet needs pyarrow: pip install pyarrow"]
    assert answer.stdout == "" and "Traceback" not in answer.stderr
    assert not Path("a.parquet").exists()


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="an optional extra")
def test_parquet_holds_every_column(run: Run, trained: Trained) -> None:
    import pyarrow.parquet

    run("embed", trained.photos, "--out", "a.parquet")
    run("embed", trained.photos, "--out", "a.npz")
    table = pyarrow.parquet.read_table("a.parquet").to_pydict()
    with np.load("a.npz") as arrays:
        for name in ("names", "labels", "split"):
            assert table[name] == arrays[name].tolist()
        np.testing.assert_array_equal(np.array(table["embeddings"], "f4"), arrays["embeddings"])


@pytest.mark.parametrize("evaluates", ["online", "target"])
def test_load_backbone_gives_the_features_of_the_run_itself(idx: Path, evaluates: str) -> None:
    request = Request(
        method="moco",
        data=f"idx:{idx}",
        changes=Changes(
            batch_size=16,
            backbone="resnet10-quarter",
            set={"evaluates": evaluates, "target.decay": 0.5},
        ),
        out=Path("r"),
        settings={"device": "cpu", "max_steps": 3, "evaluate": False},
    )
    trained = start(request)
    fit(trained)
    pixels = (read_idx(idx, "t10k") * 255).round().to(torch.uint8)
    trained.method.eval()
    networks = {
        "online": trained.method.encoder.trunk,
        "target": trained.method.components["target"].network.trunk,
    }
    with torch.inference_mode():
        (crop,) = trained.method.evaluation_views(pixels).crops
        expected = {name: network(crop).numpy() for name, network in networks.items()}
    other = expected["online" if evaluates == "target" else "target"]
    got = features(Path("r"), pixels.float() / 255)
    np.testing.assert_allclose(got, expected[evaluates], rtol=1e-4, atol=1e-5)
    assert abs(got - other).max() > 1e-3


def test_load_backbone_needs_the_file_alone(idx: Path, trained: Trained) -> None:
    shutil.copy(trained.idx / "backbone.safetensors", "alone.safetensors")
    images = read_idx(idx, "train")
    assert (features(Path("alone.safetensors"), images) == features(trained.idx, images)).all()
    backbone = coview.load_backbone("alone.safetensors")
    assert not backbone.training and backbone.width == 128
