"""What weights are worth, from the command line: a run is measured, shipped and gone on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import coview

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    coview.train(
        "simclr",
        str(photos),
        out=path,
        batch_size=16,
        backbone="resnet10-quarter",
        max_steps=2,
        device="cpu",
        progress=False,
        set={"encoder.layers": 3},
    )
    return path


def kept(run: Path) -> list[dict[str, Any]]:
    lines = (run / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_plain_knn(run: Run, refused: Run, trained: Path) -> None:
    document = run("evaluate", "knn", trained, "--vote", "plain", "-k", 5, "--json").json
    assert (document["protocol"], document["temperature"]) == ("plain kNN, cosine", None)
    text = run("evaluate", "knn", trained, "--vote", "plain", "-k", 5).stdout
    assert "(plain kNN, cosine, k = 5, 48 training" in text
    assert refused("evaluate", "knn", trained, "--vote", "plain", "--temperature", 1) == [
        "A plain vote has no temperature: leave out --temperature."
    ]


def test_linear_by_grid(run: Run, trained: Path) -> None:
    before = (trained / "backbone.safetensors").read_bytes()
    document = run("evaluate", "linear", trained, "--epochs", 5, "--json").json
    assert document["protocol"] == "linear, offline, frozen features"
    assert len(document["grid"]) == 25 and document["epochs"] == 5
    assert (document["train_images"], document["validation_images"]) == (48, 5)
    assert document["test_images"] == 12 and document["classes"] == 3
    row = kept(trained)[-1]
    assert {key: row[key] for key in document} == document
    assert row["evaluation"] == "linear" and row["command"] and row["time"]
    alone = run("evaluate", "linear", trained, "--lr", 0.1, "--weight-decay", 0, "--epochs", 5)
    assert "Linear top-1" in alone.stdout and "lr 0.1, weight decay 0, 5 epochs" in alone.stdout
    assert (trained / "backbone.safetensors").read_bytes() == before


def test_linear_as_published(run: Run, refused: Run, trained: Path) -> None:
    options = ("--protocol", "paper", "--epochs", 2, "--json")
    document = run("evaluate", "linear", trained, *options).json
    assert document["source"] == "arXiv:2002.05709, appendix B.6, but epochs 2"
    assert (document["lr"], document["schedule"], document["batch_size"]) == (0.1, "cosine", 48)
    other = run("evaluate", "linear", trained, "--protocol", "moco", *options[2:]).json
    assert other["lr"] == 30.0 and other["schedule"] == "x 0.1 after 60 %, 80 %"
    assert refused("evaluate", "linear", trained, "--protocol", "simclr", "--lr", 1, "--lr", 2) == [
        "Only --protocol grid accepts several values of --lr or --weight-decay."
    ]
    assert (
        "Did you mean 'simclr'"
        in refused("evaluate", "linear", trained, "--protocol", "simcl", "--data", "digits")[0]
    )


def test_finetune_lists_its_images(run: Run, refused: Run, photos: Path, trained: Path) -> None:
    options = ("--labels", "2-per-class", "--epochs", 1, "--seed", 4, "--json")
    document = run("evaluate", "finetune", trained, *options).json
    assert document["labels"] == "2-per-class" and document["start"] == "head.0"
    assert len(document["images"]) == len(document["names"]) == document["train_images"] == 6
    assert sorted(Path(name).parent.name for name in document["names"]) == [
        *("class0", "class0", "class1", "class1", "class2", "class2")
    ]
    assert all((photos / name).is_file() for name in document["names"])
    assert refused("evaluate", "finetune", trained, "--from", "top") == [
        "--from must be head.0 (the backbone), head.1, ..., not 'top'."
    ]
    assert "3 layers" in refused("evaluate", "finetune", trained, "--from", "head.4")[0]
    file = trained / "backbone.safetensors"
    assert (
        "only a run's checkpoint has the projection head"
        in refused("evaluate", "finetune", file, "--data", photos, "--from", "head.1")[0]
    )


def test_a_checkpoint_that_lacks_a_layer_is_said_not_to_fit(trained: Path, tmp_path: Path) -> None:
    from coview.evaluation.finetune import starting_network
    from coview.weights.exported import load_backbone

    cut = shutil.copytree(trained, tmp_path / "cut")
    state = torch.load(cut / "checkpoints" / "last.pt", weights_only=True)
    del state["method"]["components.encoder.projector.0.0.weight"]
    torch.save(state, cut / "checkpoints" / "last.pt")
    with pytest.raises(coview.errors.CoviewError, match="does not fit its recipe"):
        starting_network(cut, load_backbone(cut), "head.1")


def test_finetune_from_inside_the_head(run: Run, trained: Path) -> None:
    from coview.evaluation.finetune import starting_network
    from coview.weights.exported import load_backbone

    network = load_backbone(trained)
    head, width = starting_network(trained, network, "head.1")
    state = torch.load(trained / "checkpoints" / "last.pt", weights_only=True)["method"]
    own = head.state_dict()
    assert own and width == len(own["0.0.weight"])
    for key, value in own.items():
        assert torch.equal(value, state[f"components.encoder.projector.{key}"])
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, state[f"components.encoder.trunk.{key}"])
    document = run(
        "evaluate", "finetune", trained, "--from", "head.1", "--epochs", 1, "--json"
    ).json
    assert document["start"] == "head.1" and document["train_images"] == 48


@pytest.fixture
def smaller(photos: Path, tmp_path: Path) -> Path:
    """The same photographs elsewhere, in other folders and another format."""
    for path in sorted(photos.rglob("*.jpg"))[::3]:
        place = tmp_path / "smaller" / f"kind-{path.parent.name}"
        place.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(place / f"{path.stem}.png")
    return tmp_path / "smaller"


def test_retrieval_of_the_same_image_elsewhere(
    run: Run, refused: Run, photos: Path, smaller: Path, trained: Path
) -> None:
    options = ("--query", smaller, "--gallery", photos)
    document = run(
        "evaluate", "retrieval", trained, *options, "--match", "name", "-k", 1, "--json"
    ).json
    assert (document["queries"], document["gallery"]) == (10, 60)
    assert document["recall_at_1"] == document["mean_average_precision"] == 1.0
    assert document["data"] == f"folder:{smaller}" or str(smaller) in document["data"]
    assert str(photos) in document["gallery_data"]
    assert refused("evaluate", "retrieval", trained, *options) == [
        "No query has a match in the gallery, by label."
    ]
    assert refused("evaluate", "retrieval", trained, "--query", smaller) == [
        "Give both --query and --gallery, or neither."
    ]


def test_retrieval_of_the_class(run: Run, trained: Path) -> None:
    document = run("evaluate", "retrieval", trained, "-k", 1, "-k", 3, "--json").json
    assert (document["queries"], document["gallery"]) == (12, 48)
    run("embed", trained, "--out", "e.npz")
    with np.load("e.npz") as table:
        rows = table["embeddings"] / np.linalg.norm(table["embeddings"], axis=1, keepdims=True)
        labels, split = table["labels"], table["split"]
    right, precisions = 0, []
    for query, label in zip(rows[split == "test"], labels[split == "test"], strict=True):
        ranked = labels[split == "train"][np.argsort(-(rows[split == "train"] @ query))] == label
        right += ranked[:3].any()
        places = [place for place, match in enumerate(ranked, 1) if match]
        precisions.append(np.mean([n / place for n, place in enumerate(places, 1)]))
    assert document["recall_at_3"] == pytest.approx(right / 12)
    assert document["mean_average_precision"] == pytest.approx(np.mean(precisions), abs=1e-5)
    assert "recall@1" in run("evaluate", "retrieval", trained).stdout


def test_the_table_of_runs(run: Run, refused: Run, trained: Path) -> None:
    run("evaluate", "linear", trained, "--lr", 1, "--weight-decay", 0, "--epochs", 1, "--seed", 9)
    found = run("evaluate", "table", trained, "--json").json
    assert found[0]["evaluation"] == "knn" and found[0]["top1"] == pytest.approx(
        run("evaluate", "knn", trained, "--json").json["top1"]
    )
    assert {"protocol", "command", "train_seed", "trained_epochs", "run"} <= set(found[-1])
    assert (found[-1]["seed"], found[-1]["epochs"]) == (9, 1)
    assert all(row["settings"] == {} for row in found), "one run differs from none"
    text = run("evaluate", "table", trained, "--markdown").stdout.splitlines()
    assert "| top-1 | top-5 | run |" not in text, "of three classes there is no top-5"
    assert "| top-1 | run |" in text
    both = ("--markdown", "--json")
    assert refused("evaluate", "table", trained, *both) == ["Give --markdown or --json, not both."]
    assert refused("evaluate", "table") == ["Name at least one RUN."]


def test_which_of_two_temperatures_is_better(
    run: Run, idx: Path, tiny: tuple[str, ...], terminal: Callable[..., str]
) -> None:
    """On a terminal of 80 columns."""
    outs = []
    for warmth, seed in ((0.1, 0), (0.1, 1), (0.5, 0), (0.5, 1)):
        out = Path("runs") / f"simclr-with-a-temperature-of-{warmth}-and-the-seed-{seed}"
        options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--temperature", warmth)
        run("train", "simclr", *options, "--seed", seed, "--out", out)
        outs.append(out)
    lines = terminal("evaluate", "table", *outs, "--each").splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(lines)
    assert "method simclr" in shown and "Runs are in runs/" in shown
    assert "One of 24 test images is 4.2 points" in shown
    titles = next(line for line in lines if line.startswith("top-1")).split()
    assert titles == ["top-1", "temperature", "seed", "run"]
    shares = [float(line.split()[0]) for line in lines if " %  0." in line]
    assert len(shares) == 4 and shares == sorted(shares, reverse=True)
    grouped = run("evaluate", "table", *outs).stdout
    assert grouped.count("  2 runs") == 2 and "differ by their seed alone" in grouped


def test_export_and_start_from_it(run: Run, refused: Run, photos: Path, trained: Path) -> None:
    said = run("export", trained, "--out", "a.safetensors", "--json").json
    assert said["difference"] <= 1e-5 and said["width"] == 128 and said["keys"] == "timm"
    first = coview.load_backbone("a.safetensors").backbone.state_dict()
    for key, value in coview.load_backbone(trained).backbone.state_dict().items():
        assert torch.equal(first[key], value)
    text = run("export", trained, "--out", "a.pt2", "--format", "torch-export").stdout
    assert "a.pt2: resnet10-quarter, 128 features, as torch-export" in text
    assert refused("export", trained, "--out", "b", "--format", "onnx", "--keys", "timm") == [
        "--keys is only for --format safetensors: leave it out."
    ]


def test_init_from_another_programs_checkpoint(
    run: Run, refused: Run, photos: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = timm.create_model("test_resnet", num_classes=0).state_dict()
    keys = {f"module.encoder_q.{key}": value for key, value in source.items()}
    torch.save({"state_dict": {**keys, "module.queue": torch.ones(2, 2)}}, tmp_path / "moco.pth")
    options = ("--data", photos, "--batch-size", 16, "--device", "cpu", "--no-evaluate")
    start = ("train", "byol", *options, "--backbone", "test_resnet", "--max-steps", 1)
    start += ("--set", "backbone.stem=7x7")
    answer = run(*start, "--init", "moco.pth", "--out", "run", "--set", "optimizer.lr=1e-30")
    assert "note: moco.pth is laid out as MoCo: all" in answer.stderr
    assert "1 others were left out (module.queue)" in answer.stderr
    trained = load_file(tmp_path / "run" / "backbone.safetensors")
    for key, value in source.items():
        if "running" not in key and "num_batches" not in key:
            assert torch.allclose(trained[key], value, atol=1e-4), key
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    (problem,) = refused(*start, "--init", "other.safetensors", "--out", "no")
    start_of = (
        "other.safetensors holds no tensor of this backbone under any known name. It holds a; "
    )
    assert problem.startswith(start_of)


def test_timm_by_name(run: Run, refused: Run, photos: Path) -> None:
    answer = run("evaluate", "knn", "timm:test_resnet", "--data", photos, "--json")
    assert "note: timm:test_resnet has RANDOM weights (seed 0)" in answer.stderr
    assert answer.json["origin"] == "random, seed 0" and answer.json["train_images"] == 48
    said = run("embed", "timm:test_resnet", "--data", photos, "--out", "e.npz", "--json").json
    assert (said["images"], said["origin"]) == (60, "random, seed 0")
    found = run("evaluate", "retrieval", "timm:test_resnet", "--data", photos, "--json").json
    assert found["origin"] == "random, seed 0" and found["queries"] == 12
    grid = ("--lr", 1, "--weight-decay", 0, "--epochs", 2)
    text = run("evaluate", "linear", "timm:test_resnet", "--data", photos, *grid)
    assert "Linear top-1" in text.stdout and "RANDOM" in text.stderr
    assert refused("evaluate", "knn", "timm:test_resnet") == [
        "Name the data (--data, in Python data=): only a run records what it was trained on."
    ]
    options = ("--data", photos, "--protocol", "paper")
    wrong = run("evaluate", "linear", "timm:test_resnet", *options, status=2)
    assert "published linear probe is known for 'timm:test_resnet'" in wrong.errors[0]
    assert "Did you mean" in refused("embed", "timm:test_resnit", "--out", "e.npy")[0]


def test_another_programs_file_is_measured(
    run: Run, refused: Run, photos: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = timm.create_model("test_resnet", num_classes=0).state_dict()
    keys = {f"module.encoder_q.{key}": value for key, value in source.items()}
    torch.save({"state_dict": {**keys, "module.queue": torch.ones(2, 2)}}, "moco.pth")
    options = ("moco.pth", "--data", photos, "--json")
    answer = run("evaluate", "knn", *options, "--backbone", "test_resnet")
    assert answer.json["origin"] == "MoCo"
    assert "note: moco.pth is laid out as MoCo: all" in answer.stderr
    # The same weights under another name: timm's random ones of seed 0.
    plain = run("evaluate", "knn", "timm:test_resnet", *options[1:]).json
    assert {**plain, "origin": "MoCo", "weights": "moco.pth"} == answer.json
    assert refused("evaluate", "knn", *options[:-1]) == [
        "moco.pth was not written by coview and does not name its network. Add its "
        "architecture, for example: --backbone resnet50"
    ]


def test_a_classifiers_backbone(run: Run, photos: Path, trained: Path) -> None:
    grid = ("--lr", 1, "--weight-decay", 0, "--epochs", 1)
    run("evaluate", "linear", trained, *grid, "--save", "linear.safetensors")
    for key, value in coview.load_backbone(trained).backbone.state_dict().items():
        assert torch.equal(
            coview.load_backbone("linear.safetensors").backbone.state_dict()[key], value
        )
    document = run("evaluate", "knn", "linear.safetensors", "--data", photos, "--json").json
    assert document["top1"] == run("evaluate", "knn", trained, "--json").json["top1"]
    run("export", "linear.safetensors", "--out", "alone.safetensors")
    run("embed", "linear.safetensors", "--data", photos, "--out", "e.npy")
    said = run("distill", "linear.safetensors", "--data", photos, "--epochs", 1, "--json").json
    assert said["train_images"] == 48
    start = ("train", "byol", "--data", photos, "--batch-size", 16, "--max-steps", 1)
    options = ("--backbone", "resnet10-quarter", "--no-evaluate", "--out", "next")
    run(*start, *options, "--init", "linear.safetensors")


def test_a_support_vector_machine(run: Run, refused: Run, trained: Path) -> None:
    document = run("evaluate", "linear", trained, "--protocol", "instdisc", "--json").json
    assert document["protocol"] == "linear SVM, offline, frozen features"
    assert (document["cost"], document["classes"]) == (1.0, 3)
    assert (
        "C = 1, 48 training" in run("evaluate", "linear", trained, "--protocol", "instdisc").stdout
    )
    assert refused(
        *("evaluate", "linear", trained, "--protocol", "instdisc"),
        *("--epochs", 2, "--head-batch-size", 8),
    ) == ["This protocol does not train in steps: leave out --epochs, --head-batch-size."]
    assert "cost" in run("evaluate", "table", trained, "--json").json[-1]


def test_finetuning_as_ones_own_method_published(run: Run, refused: Run, trained: Path) -> None:
    options = ("--labels", "1%", "--epochs", 1, "--json")
    own = run("evaluate", "finetune", trained, *options).json
    assert own["source"] == "arXiv:2002.05709, appendix B.5, but epochs 1"
    swav = run("evaluate", "finetune", trained, *options, "--protocol", "swav").json
    assert (swav["lr"], swav["head_lr"]) == (0.02, 5.0)
    assert refused("evaluate", "finetune", trained, "--protocol", "moco")[0].startswith(
        "No published fine-tuning is known for 'moco'. Name one: --protocol instdisc, simclr"
    )
