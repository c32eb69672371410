"""Published protocols: declared by recipes, kept with weights, found by a method's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import coview
from coview import Use
from coview.errors import CoviewError, RequestError
from coview.evaluation.published import SGD, SVM, find_finetuning, find_probe
from coview.optim.protocols import GENERIC, Protocol, SupportVectors
from coview.weights.card import WeightCard
from coview.weights.exported import load_backbone

Run = Callable[..., Any]
MINE = {"source": "arXiv:0000.00000, table 9", "lr": 0.7, "epochs": 3, "drops": (0.5,)}


def of(method: str) -> WeightCard:
    return WeightCard(method=method, backbone="resnet50")


def test_paper_is_the_probe_of_the_weights_method() -> None:
    way, moco = find_probe("paper", of("moco"))
    assert way is SGD and isinstance(moco, Protocol)
    assert (moco.lr, moco.epochs, moco.drops) == (30.0, 100, (0.6, 0.8))
    byol = find_probe("byol", of("moco"))[1]
    assert isinstance(byol, Protocol) and byol.nesterov
    assert find_probe("coview-byol:byol", of("moco")) == (SGD, byol)
    way, machine = find_probe("paper", of("instdisc"))
    assert way is SVM and isinstance(machine, SupportVectors) and machine.cost == 1.0


def test_what_nobody_published() -> None:
    with pytest.raises(RequestError) as caught:
        find_probe("paper", of("mine"))
    sentence = str(caught.value)
    assert sentence.startswith("No published linear probe is known for 'mine'. Name one: ")
    assert "moco, moco-v2" in sentence and "cpc-v2" not in sentence
    with pytest.raises(RequestError, match="no protocol called 'mocco'. Did you mean 'moco'"):
        find_probe("mocco", of("moco"))
    with pytest.raises(RequestError, match="No published linear probe is known for 'cpc-v2'"):
        find_probe("cpc-v2", of("moco"))
    with pytest.raises(RequestError, match="No published fine-tuning is known for 'moco'"):
        find_finetuning("moco", of("simclr"), "1%")
    with pytest.raises(RequestError, match="known for 'moco'. Name one: --protocol instdisc, "):
        find_finetuning("paper", of("moco"), "1%")


def test_fine_tuning_as_published_or_by_the_cores_own_choice() -> None:
    swav = find_finetuning(None, of("swav"), "10%")[1]
    assert (swav.lr, swav.head_lr, swav.epochs) == (0.01, 0.2, 20)
    few = find_finetuning("swav", of("moco"), "1%")[1]
    assert (few.lr, few.head_lr) == (0.02, 5.0)
    own = find_finetuning(None, of("moco"), "1%")[1]
    assert own.source == "coview's own choice: none is published for 'moco'"
    assert (own.lr, own.epochs) == (GENERIC.lr, 60)


def test_a_recipe_of_ones_own_declares_its_probe(run: Run, photos: Path, tmp_path: Path) -> None:
    """From Python to the run's files, to the weights, to the number."""
    recipe = attrs.evolve(coview.recipe("simclr"), name="mine", probe=Use("sgd", **MINE))
    done = coview.train(
        recipe,
        str(photos),
        out=tmp_path / "run",
        batch_size=16,
        backbone="resnet10-quarter",
        max_steps=1,
        device="cpu",
        progress=False,
        evaluate=False,
    )
    written = coview.recipe(done.path / "recipe.toml").probe
    assert written.settings["lr"] == 0.7 and written.settings["drops"] == [0.5]
    kept = load_backbone(done.path).meta["published"]
    assert kept["probe"]["use"] == "sgd" and kept["probe"]["epochs"] == 3
    assert kept["finetune"]["few_epochs"] == 60, "SimCLR's own is still there"
    document = run("evaluate", "linear", done.path, "--protocol", "paper", "--json").json
    assert (document["source"], document["lr"]) == ("arXiv:0000.00000, table 9", 0.7)
    assert (document["epochs"], document["schedule"]) == (3, "x 0.1 after 50 %")
    file = done.path / "backbone.safetensors"
    options = ("--data", photos, "--protocol", "paper", "--epochs", 1, "--json")
    assert run("evaluate", "linear", file, *options).json["lr"] == 0.7
    assert json.loads((done.path / "evaluations.jsonl").read_text())["evaluation"] == "linear"


def test_a_probe_is_a_setting_like_any_other(run: Run, refused: Run) -> None:
    said = run("show", "moco", "--set", "probe.lr=10", "--json").json["tables"]["probe"][0]
    assert (said["use"], said["settings"]["lr"]["value"]) == ("sgd", 10.0)
    assert said["settings"]["lr"]["layer"] == "command line"
    assert said["settings"]["epochs"]["layer"] == "recipe" and said["settings"]["epochs"]["help"]
    text = run("show", "instdisc").stdout
    assert "probe: svm  [coview]" in text and "probe.cost = 1.0  (recipe)" in text
    assert "finetune: none" in run("show", "moco").stdout
    assert refused("show", "moco", "--set", "probe.rate=1", "--use", "finetune=svm") == [
        "probe 'sgd' (coview) has no setting 'rate'. Its settings: "
        + ", ".join(field.name for field in attrs.fields(Protocol))
        + ".",
        "Evaluation protocol 'svm' (coview) cannot be used for finetune.",
    ]
    assert "must be above 0" in refused("show", "moco", "--set", "probe.lr=0")[0]


def test_a_file_declares_its_probe(run: Run) -> None:
    """With a base of which it keeps what it does not change, or another way altogether."""
    Path("mine.toml").write_text('base = "moco"\n[probe]\nlr = 7\n[finetune]\nuse = "sgd"\n')
    tables = run("show", "mine.toml", "--json").json["tables"]
    lr, epochs = (tables["probe"][0]["settings"][key]["value"] for key in ("lr", "epochs"))
    assert (lr, epochs, tables["finetune"][0]["use"]) == (7.0, 100, "sgd")
    Path("again.toml").write_text(run("show", "mine.toml", "--toml").stdout)
    again = run("show", "again.toml", "--json").json["tables"]
    assert [
        (part["use"], {key: said["value"] for key, said in part["settings"].items()})
        for part in (*again["probe"], *again["finetune"])
    ] == [
        (part["use"], {key: said["value"] for key, said in part["settings"].items()})
        for part in (*tables["probe"], *tables["finetune"])
    ]
    Path("svm.toml").write_text('base = "moco"\n[probe]\nuse = "svm"\n')
    assert coview.recipe("svm.toml").probe == Use("svm")


def test_a_probe_follows_the_preset(run: Run) -> None:
    """A vision transformer's rate and a ResNet's differ in MoCo v3."""
    for preset, rate in (("none", 3.0), ("resnet", 0.1), ("small", 0.1)):
        tables = run("show", "moco-v3", "--preset", preset, "--json").json["tables"]
        assert tables["probe"][0]["settings"]["lr"]["value"] == rate


def test_weights_that_say_something_else_than_this_version_knows() -> None:
    with pytest.raises(CoviewError, match="no evaluation protocol called 'forest'"):
        find_probe("paper", attrs.evolve(of("x"), published={"probe": {"use": "forest"}}))
    with pytest.raises(CoviewError, match="probe has no setting 'rate'"):
        kept = {"probe": {"use": "sgd", "rate": 1}}
        find_probe("paper", attrs.evolve(of("x"), published=kept))
