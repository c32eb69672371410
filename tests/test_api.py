"""Python is the same as the command line: the functions of coview, with the same answers."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor, nn

import coview

Run = Callable[..., Any]
TRAINING = {"batch_size": 16, "max_steps": 2, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Any:
    out = tmp_path_factory.mktemp("api") / "a run"
    network = "resnet10-quarter"
    return coview.train("simclr", str(photos), out=out, backbone=network, **TRAINING)


def kept(run: Path) -> dict[str, Any]:
    """Return the last evaluation that a run has recorded."""
    line: dict[str, Any] = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    return line


EVALUATIONS = {
    "knn": ({"k": 5, "vote": "plain"}, ("-k", 5, "--vote", "plain")),
    "linear": (
        {"lr": [0.1, 1], "weight_decay": 0, "epochs": 2},
        ("--lr", 0.1, "--lr", 1, "--weight-decay", 0, "--epochs", 2),
    ),
    "finetune": (
        {"labels": "2-per-class", "epochs": 1, "seed": 3, "start": "head.1"},
        ("--labels", "2-per-class", "--epochs", 1, "--seed", 3, "--from", "head.1"),
    ),
    "retrieval": ({"k": 3, "match": "label"}, ("-k", 3)),
    "svm": ({"cost": 0.5}, ("--set", "cost=0.5")),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_is_the_same_in_python(run: Run, finished: Any, name: str) -> None:
    """Of a run's directory, and of the finished run, whose network and data are in memory."""
    settings, options = EVALUATIONS[name]
    document = run("evaluate", name, finished.path, *options, "--json").json
    before = finished.method.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    for weights in (finished.path, finished):
        result = coview.evaluate(weights, name, **settings)
        assert json.loads(json.dumps(result)) == document
        row = kept(finished.path)
        assert row["evaluation"] == name and {k: row[k] for k in document} == document
    assert run("evaluate", name, finished.path, *options).stdout == f"{result}\n"
    assert all(torch.equal(before[k], v) for k, v in finished.method.state_dict().items())


def test_settings_arrive(finished: Any) -> None:
    values = {"lr": 0.2, "head_lr": 0.3, "layer_decay": 0.5, "weight_decay": 0.01, "epochs": 1}
    options: dict[str, Any] = {**values, "seed": 4, "labels": "50%"}
    found = coview.evaluate(finished, "FineTune", train_batch_size=7, **options)
    assert {name: found[name] for name in options} == options and found["batch_size"] == 7
    assert kept(finished.path)["evaluation"] == "finetune"
    options = {"lr": 0.2, "weight_decay": 0.01, "epochs": 1, "seed": 4}
    for protocol in ("grid", "moco"):
        given = {**options, "protocol": protocol, "save": Path(f"{protocol}.safetensors")}
        found = coview.evaluate(finished, "linear", head_batch_size=7, **given)
        assert {name: found[name] for name in options} == options and found["batch_size"] == 7
        assert coview.load_backbone(f"{protocol}.safetensors").width == 128
    assert coview.evaluate(finished, "knn", temperature=0.5)["temperature"] == 0.5
    assert coview.evaluate(finished, "svm", cost=2, seed=4)["seed"] == 4


def test_wrong_settings_are_all_told(finished: Any) -> None:
    wrong: tuple[tuple[dict[str, Any], list[str]], ...] = (
        (
            {"evaluation": "knn", "kk": 1, "vote": "wieghted", "k": 0},
            [
                "knn has no setting 'kk'. Did you mean 'k'? "
                "Its settings: k, vote, temperature, features.",
                "vote must be weighted or plain, not 'wieghted'. Did you mean 'weighted'?",
                "k must be at least 1, not 0.",
            ],
        ),
        ({"evaluation": "linear", "lr": (1.0, 0.0)}, ["lr must be above 0, not 0.0."]),
        ({"evaluation": "finetune", "layer_decay": 2}, ["layer_decay must be between 0 and 1"]),
        ({"batch_size": 0, "workers": -1}, ["batch_size must be at least 1", "workers must be"]),
        ({"on_bad_image": "skipp"}, ["on_bad_image must be skip or stop"]),
        (
            {"evaluation": "kn"},
            ["There is no evaluation protocol called 'kn'. Did you mean 'knn'?"],
        ),
        ({"evaluation": "retrieval", "query": "digits"}, ["Give both --query and --gallery"]),
        ({"backbone": "resnet50"}, ["This run has its network: leave out backbone"]),
        ({"device": "cup"}, ["There is no device called 'cup'. Did you mean 'cpu'?"]),
    )
    for options, problems in wrong:
        with pytest.raises(coview.RequestError) as caught:
            coview.evaluate(finished, **options)
        assert len(caught.value.problems) == len(problems)
        for said, expected in zip(caught.value.problems, problems, strict=True):
            assert said.startswith(expected)
    with pytest.raises(coview.RequestError, match="not int"):
        coview.evaluate(3)  # type: ignore[arg-type]


class Stripes(torch.utils.data.Dataset[Any]):
    """Striped grey images of two directions, each with its label."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = np.zeros((16, 16), np.uint8)
        image[index % 3 :: 3] = 200
        return Image.fromarray(image.T if index % 2 else image), index % 2


class Net(nn.Module):
    """A small network that no registry knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean((2, 3))


def test_objects_of_ones_own_go_through_everything(run: Run, tmp_path: Path) -> None:
    trained = coview.train("simclr", Stripes(), backbone=Net(), **TRAINING)
    own = coview.evaluate(trained, "knn", k=3)
    assert (own["train_images"], own["test_images"], own["data"]) == (32, 8, "array")
    for problem, given in (
        ("This run's data were a Python object", {"backbone": Net()}),
        ("backbone was a Python object", {"data": Stripes()}),
    ):
        with pytest.raises(coview.RequestError, match=problem):
            coview.evaluate(trained.path, "knn", **given)
    again = coview.evaluate(trained.path, "knn", Stripes(), backbone=Net(), k=3)
    assert again == own and again.told == own.told
    images = np.stack([np.asarray(image) for image, _ in map(Stripes().__getitem__, range(40))])
    labels = np.arange(40) % 2
    for data in ((images, labels), (torch.from_numpy(images), torch.from_numpy(labels))):
        assert coview.evaluate(trained, "knn", data, k=3) == own
    with pytest.raises(coview.RequestError, match="array has no labels"):
        coview.evaluate(trained, "knn", images)
    table = coview.embed(trained, images[:5])
    assert table["embeddings"].shape == (5, 8) and sorted(table) == ["embeddings", "split"]
    queries = (images[:4], labels[:4])
    found = coview.evaluate(trained, "retrieval", query=queries, gallery=queries, k=1)
    assert (found["queries"], found["gallery"]) == (4, 4)
    alone = (images[:4], np.arange(4))  # an image does not find itself
    with pytest.raises(coview.RequestError, match="No query has a match"):
        coview.evaluate(trained, "retrieval", query=alone, gallery=alone)


def test_what_was_held_out_of_another_share_is_measured(idx: Path, tmp_path: Path) -> None:
    images = np.random.RandomState(0).randint(0, 255, (60, 12, 12, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        folder = tmp_path / "data" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    options = {**TRAINING, "backbone": "resnet10-quarter", "set": {"data.holdout": 0.5}}
    trained = coview.train("simclr", str(tmp_path / "data"), out="r", **options)
    result = coview.evaluate("r", "knn")
    assert (result["train_images"], result["test_images"]) == (30, 30)
    assert result == coview.evaluate(trained, "knn") and len(result.told) >= 3
    # Named, they are split in the same way.
    assert coview.evaluate("r", "knn", str(tmp_path / "data"))["test_images"] == 30


def test_embed_returns_what_the_command_writes(run: Run, photos: Path, finished: Any) -> None:
    answer = run("embed", finished.path, "--out", "a.npz")
    table = coview.embed(finished)
    assert list(table) == ["embeddings", "labels", "classes", "names", "split"]
    with np.load("a.npz") as written:
        for name, values in table.items():
            assert (written[name] == values).all(), name
    assert list(Path().iterdir()) == [Path("a.npz")]  # without out, nothing is written
    assert repr(table) == "60 embeddings of width 128"
    part = coview.embed(finished.path, str(photos), split="test", batch_size=5, out="b.npy")
    assert part["embeddings"].shape == np.load("b.npy").shape == (12, 128)
    assert f"{part}\n" == answer.stdout.replace("60", "12").replace("a.npz", "b.npy")
    for wrong, said in (({"split": "tets"}, "Did you mean 'test'"), ({"out": "a.txt"}, ".npz")):
        with pytest.raises(coview.RequestError, match=said):
            coview.embed(finished, **wrong)


def test_export_is_the_same_in_python(run: Run, finished: Any) -> None:
    document = run("export", finished.path, "--out", "a.safetensors", "--json").json
    done = coview.export(finished, Path("b.safetensors"))
    assert json.dumps(done) == json.dumps(document).replace("a.safetensors", "b.safetensors")
    first, second = load_file("a.safetensors"), load_file("b.safetensors")
    assert set(first) == set(second) and all((first[k] == second[k]).all() for k in first)
    text = run("export", finished.path, "--out", "b.safetensors").stdout
    assert (
        text == f"{done}\n"
        and "images of 24 pixels with 3 channels: give it values in [0, 1]" in text
    )
    names: dict[str, Any] = {}
    exec("\n".join(done["load"]), names)
    images = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(names["net"](images), coview.load_backbone(finished.path)(images))
    for wrong, said in (
        ({"format": "onnx", "keys": "timm"}, "keys is only for"),
        ({"format": "onx"}, "Did you mean 'onnx'"),
        ({"keys": "trim"}, "Did you mean 'timm'"),
        ({"pretrained": True}, "leave out backbone and pretrained"),
    ):
        with pytest.raises(coview.RequestError, match=said):
            coview.export(finished, "c", **wrong)
    assert not Path("c").exists()


def test_compare_returns_the_rows_of_the_table(run: Run, finished: Any) -> None:
    coview.evaluate(finished, "knn", k=7)
    rows = coview.compare(finished)
    assert rows[-1]["k"] == 7 and rows == coview.compare([finished.path])
    assert len(coview.compare([str(finished.path), finished])) == 2 * len(rows)
    with pytest.raises(coview.RequestError, match="There is no run at nowhere"):
        coview.compare("nowhere")


def test_metrics_as_a_table_need_pandas(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(coview.RequestError, match=r"needs pandas: pip install pandas\. Without"):
        finished.table()


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="optional")
def test_metrics_are_a_table(finished: Any) -> None:
    table = finished.table()
    assert len(table) == len(finished.metrics) and {"step", "epoch", "loss"} <= set(table)
    assert table["knn.top1"].dropna().tolist() == [finished.value("knn_top1")]


def test_views_draws_what_the_command_draws(run: Run, idx: Path) -> None:
    options = ("--images", 2, "--draws", 1, "--temperature", 0.3, "--out", "a.png")
    answer = run("views", "simclr", "--data", f"idx:{idx}", *options)
    drawn = coview.views(
        "SimCLR", f"idx:{idx}", images=2, draws=1, temperature=0.3, out=Path("b.png")
    )
    assert drawn == {"out": "b.png", "images": 2, "columns": 3}
    assert answer.stdout == f"{drawn}\n".replace("b.png", "a.png")
    assert (np.asarray(Image.open("a.png")) == np.asarray(Image.open("b.png"))).all()
    for wrong, said in (({"draws": 17}, "draws must be between 1 and 16"), ({"lrr": 1}, "lrr")):
        with pytest.raises((coview.RequestError, TypeError), match=said):
            coview.views("simclr", out="c.png", **wrong)


def test_views_is_a_package_and_a_function(python: Run) -> None:
    """Whichever comes first, the call or the import."""
    import coview.views.crops

    assert coview.views.crops.CropViews is coview.views.CropViews  # type: ignore[attr-defined]
    code = (
        "import sys, coview; assert 'coview.views' not in sys.modules and callable(coview.views);"
        "import coview.views.crops; coview.views('simclr', out='w.png', images=1)"
    )
    python("-c", code)
    assert Path("w.png").is_file()


def test_views_of_images_in_memory(tmp_path: Path) -> None:
    images = torch.randint(0, 255, (5, 3, 24, 24), dtype=torch.uint8)
    assert (
        coview.views("simclr", images, out="v.png")["images"] == 5
    )  # without labels none is held out
