"""Networks and views of one's own by name: trained, and found again by every command on the run."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import coview
from coview.own_code import is_code, load, placed
from coview.weights.classifier import Classifier, student_of
from coview.weights.open import open_weights

Run = Callable[..., Any]

NET = '''
"""A network and a transform of someone's own."""

import random

from torch import nn

from layers_of_mine import first


def make_network(channels, image_size):
    assert image_size == 16
    return nn.Sequential(first(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def with_classifier():
    import torchvision

    return torchvision.models.resnet18()


def wants_more(width, depth, heads):
    return nn.Flatten()


def no_network():
    return "a network"


def augment(image):
    return image * random.random()


both = [augment, lambda image: image.flip(-1)]
number = 3
'''
LAYERS = "from torch import nn\n\n\ndef first(channels):\n    return nn.Conv2d(channels, 8, 3, 2)\n"


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A folder with code of one's own."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    (folder / "layers_of_mine.py").write_text(LAYERS)
    yield folder
    for name in [name for name in sys.modules if name.startswith(("layers_of_mine", "net"))]:
        del sys.modules[name]


def small(idx: Path) -> tuple[object, ...]:
    return ("--data", f"idx:{idx}", "--batch-size", 16, "--device", "cpu", "--max-steps", 2)


def test_every_command_finds_a_network_of_ones_own(
    run: Run, mine: Path, idx: Path, tmp_path: Path
) -> None:
    code = f"{mine}/net.py:make_network"
    said = run(
        *("train", "simclr", *small(idx), "--backbone", "mine/net.py:make_network"),
        *("--use", "views=mine/net.py:augment", "--out", "run"),
    ).stderr
    for thing in ("make_network", "augment"):
        assert f"made by {thing} from {mine}/net.py. The run records this name" in said
    assert f"network: {code}, 80 parameters" in said
    facts = json.loads(Path("run/run.json").read_text())["own"]
    assert facts["backbone"]["code"] == code
    assert facts["views"]["code"] == f"{mine}/net.py:augment"
    assert len(facts["backbone"]["digest"]) == 32
    note = f"note: imported make_network from {mine}/net.py, as the run's directory says."
    for command in (
        ("evaluate", "knn", "run"),
        ("evaluate", "finetune", "run", "--from", "head.1", "--epochs", 1),
        ("embed", "run", "--out", "e.npy"),
        ("export", "run", "--out", "file.safetensors"),
    ):
        answer = run(*command)
        assert note in answer.stderr, command
        assert "changed" not in answer.stderr
    assert np.load("e.npy").shape == (72, 32)


def test_a_network_is_found_again_to_go_on_and_told_when_it_changed(
    run: Run, mine: Path, idx: Path
) -> None:
    name = "mine/net.py:make_network"
    run("train", "simclr", *small(idx), "--backbone", name, "--no-evaluate", "--out", "run")
    run("train", "--resume", "run", "--max-steps", 3)
    run("train", "run/recipe.toml", "--max-steps", 1, "--no-evaluate", "--out", "again")
    options = ("--no-evaluate", "--backbone", name, "--init", "run")
    run("train", "simclr", *small(idx), *options, "--out", "from-it")
    with (mine / "net.py").open("a") as file:
        file.write("\n# another line\n")
    assert "The file has changed since the run began." in run("evaluate", "knn", "run").stderr
    (mine / "net.py").rename(mine / "moved.py")
    assert run("evaluate", "knn", "run", status=2).errors == [f"There is no file {mine}/net.py."]
    run("evaluate", "knn", "run", "--backbone", "mine/moved.py:make_network")


def test_a_file_of_weights_imports_nothing(
    run: Run, refused: Run, mine: Path, idx: Path, tmp_path: Path
) -> None:
    run("train", "simclr", *small(idx), "--backbone", "mine/net.py:make_network", "--out", "run")
    file = tmp_path / "run/backbone.safetensors"
    code = f"{mine}/net.py:make_network"
    (problem,) = refused("evaluate", "knn", file, "--data", f"idx:{idx}")
    assert f"so add: --backbone {code}" in problem
    with pytest.raises(coview.RequestError, match="of a network of your own, made by"):
        coview.load_backbone(file)
    run("evaluate", "knn", file, "--data", f"idx:{idx}", "--backbone", code)

    # A file that someone made to look as if its network were an installed one.
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\ndef f(): pass\n")
    card = coview.load_backbone(file, backbone=code).meta
    parts = {"plan": {}, "views": {"use": f"{trap}:f", "settings": {}}, "encoder": {}}
    for change in (
        {"given": False, "code": None, "backbone": f"{trap}:f"},
        {"given": False, "backbone": "resnet18", "parts": parts},
    ):
        forged = tmp_path / "forged.safetensors"
        save_file(load_file(file), forged, metadata={"coview": json.dumps({**card, **change})})
        with pytest.raises(coview.RequestError, match="a file of weights must not"):
            coview.load_backbone(forged)
    assert not (tmp_path / "sprung").exists()
    load(f"{trap}:f")  # the trap works
    assert (tmp_path / "sprung").exists()


def test_a_recipe_from_elsewhere_imports_nothing(
    run: Run, refused: Run, mine: Path, idx: Path
) -> None:
    for table, option in (("backbone", "--backbone "), ("views", "--use views=")):
        name = "mine/net.py:make_network" if table == "backbone" else "mine/net.py:augment"
        Path("theirs.toml").write_text(f'base = "simclr"\n[{table}]\nuse = "{name}"\n')
        (problem,) = refused("train", "theirs.toml", *small(idx))
        assert problem == (
            f"theirs.toml names code to import, {name}. If you trust it, add: {option}{name}"
        )
        said = option.replace("=", f"={name}").split() if "=" in option else ["--backbone", name]
        run("train", "theirs.toml", *small(idx), *said, "--no-evaluate", "--out", table)


def test_the_same_in_python(mine: Path, idx: Path, tmp_path: Path) -> None:
    run = coview.train(
        "moco",
        f"idx:{idx}",
        backbone="mine/net.py:make_network",
        views="mine/net.py:both",
        set={"negatives.size": 32},
        batch_size=16,
        max_steps=2,
        device="cpu",
        progress=False,
        out="run",
    )
    # MoCo's own way to compare: the first view with the second.
    assert run.method.components["views"].layout.pairs == ((0, 1),)
    assert f'use = "{mine}/net.py:both"' in (run.path / "recipe.toml").read_text()
    with pytest.warns(UserWarning, match="imported make_network from .*, as the run's directory"):
        network = coview.load_backbone(run.path)
    images = torch.rand(2, 1, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the user named it: nothing to say
        named = coview.load_backbone(run.path, backbone="mine/net.py:make_network")
    assert torch.equal(network(images), named(images))
    coview.train(resume=run.path, max_steps=3, progress=False)


def test_a_python_object_says_what_to_add(
    run: Run, refused: Run, mine: Path, idx: Path, tmp_path: Path
) -> None:
    class Mine(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :32]

    options: dict[str, Any] = {"batch_size": 16, "max_steps": 1, "progress": False, "out": "run"}
    trained = coview.train("simclr", f"idx:{idx}", backbone=Mine(), device="cpu", **options)
    notes = [note for note in trained.resolved.notices if "Python object (Mine)" in note]
    assert len(notes) == 1
    assert "pass it again to resume and to load its weights" in notes[0]
    own = json.loads(Path("run/run.json").read_text())["own"]
    assert own == {"backbone": {"object": "Mine"}}
    for command in (("evaluate", "knn", "run"), ("embed", "run", "--out", "e.npy")):
        (problem,) = refused(*command)
        assert "Add: --backbone FILE.py:FUNCTION, a function that returns a Mine" in problem
    (mine / "same.py").write_text(
        "from torch import nn\n\n\nclass Mine(nn.Module):\n    def forward(self, images):\n"
        "        return images.flatten(1)[:, :32]\n"
    )
    run("evaluate", "knn", "run", "--backbone", "mine/same.py:Mine")


def test_a_module_by_its_dotted_name(
    run: Run, mine: Path, idx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine)
    options = small(idx)
    run("train", "simclr", *options, "--backbone", "net:make_network", "--out", "../run")
    recorded = json.loads(Path("../run/run.json").read_text())["own"]["backbone"]
    assert recorded["code"] == "net:make_network"
    run("evaluate", "knn", "../run")


def test_a_classifier_at_the_end_is_noticed(run: Run, mine: Path, idx: Path) -> None:
    name = "mine/net.py:with_classifier"
    photos = ("--set", "data.channels=3", "--no-evaluate", "--out", "run", "--max-steps", 1)
    said = run("train", "simclr", *small(idx), *photos, "--backbone", name).stderr
    assert "note: The backbone ResNet seems to end in a classifier (fc: 512 to 1000)" in said
    assert "write fc = nn.Identity()." in said


def test_wrong_names(refused: Run, mine: Path) -> None:
    def problem(name: str, option: str = "--backbone") -> str:
        (said,) = refused("train", "simclr", option, name, "--dry-run")
        return said

    (mine / "broken.py").write_text("x = 1\ny = x / 0\n")
    assert problem("mine/net.py:make_netwrk") == (
        f"{mine}/net.py has no 'make_netwrk'. Did you mean 'make_network'?"
    )
    assert problem("mine/nets.py:make") == f"There is no file {mine}/nets.py."
    assert "broken.py, line 2: importing it fails with ZeroDivisionError" in problem(
        "mine/broken.py:f"
    )
    assert "There is no module no.such, neither installed nor in" in problem("no.such:thing")
    assert "must be a function that returns a torch.nn.Module, not int" in problem(
        "mine/net.py:number"
    )
    # What is no name of code is still looked for among what is installed.
    assert "Did you mean 'resnet18'?" in problem("resnet81")
    assert "There is no file" in problem("views=mine/nets.py:f", "--use")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("wants_more", "must take no arguments, or (channels, image_size), not (width, depth, he"),
        ("no_network", "must return a torch.nn.Module, not str"),
    ],
)
def test_wrong_functions(refused: Run, mine: Path, idx: Path, function: str, said: str) -> None:
    arguments = ("train", "simclr", "--data", f"idx:{idx}", "--batch-size", 16, "--out", "run")
    (problem,) = refused(*arguments, "--backbone", f"mine/net.py:{function}")
    assert said in problem
    assert not Path("run/run.json").exists()


def test_no_student_is_saved_that_could_not_be_loaded(mine: Path) -> None:
    network = open_weights("timm:test_resnet").network
    teacher = Classifier(network, nn.Identity(), nn.Linear(network.width, 3))
    with pytest.raises(coview.RequestError, match="A student must be a registered or timm netw"):
        student_of(teacher, "mine/net.py:with_classifier")


def test_what_is_the_name_of_code(tmp_path: Path) -> None:
    for text in ("net.py:f", "~/a b/net.py:Nets.small", "package.module:f", "torch:f"):
        assert is_code(text), text
    for text in (
        "resnet18",
        "coview-cmc:rgb",
        "resnet18.a1_in1k",
        "net.py",
        "net.py:",
        ":f",
        "a:b-c",
    ):
        assert not is_code(text), text
    assert placed("net.py:f") == f"{tmp_path}/net.py:f"
    assert placed("a.b:f") == "a.b:f"


def test_code_runs_once_and_anew_when_it_changes(mine: Path) -> None:
    file = mine / "counted.py"
    counts = f"with open({str(mine / 'log')!r}, 'a') as file:\n    file.write('x')\n"
    file.write_text(f"{counts}f = 1\n")
    assert load(f"{file}:f").thing == load(f"{file}:f").thing == 1
    assert (mine / "log").read_text() == "x"
    file.write_text(f"{counts}f = 22\n")
    assert load(f"{file}:f").thing == 22
    assert str(mine) not in sys.path
    shutil.rmtree(mine)
