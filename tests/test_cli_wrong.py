"""Wrong requests: a sentence for each problem, exit status 2, and nothing on stdout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Refused = Callable[..., list[str]]
LIMIT = ("--max-steps", "1")

ONE_PROBLEM = {
    "unknown method": (
        ("train", "simcrl"),
        "There is no method called 'simcrl'. Did you mean 'simclr'?",
    ),
    "unknown method to show": (
        ("show", "mocov2"),
        "There is no method called 'mocov2'. Did you mean 'moco-v2'?",
    ),
    "unknown method of a lineage": (
        ("lineage", "byoll"),
        "There is no method called 'byoll'. Did you mean 'byol'?",
    ),
    "unknown method to draw": (
        ("views", "mocco", "--out", "v.png"),
        "There is no method called 'mocco'. Did you mean 'moco'?",
    ),
    "unknown command": (("trian",), "There is no command called 'trian'. Did you mean 'train'?"),
    "unknown kind": (("list", "losss"), "There is no kind called 'losss'. Did you mean 'losses'?"),
    "unknown role": (
        ("train", "simclr", "--use", "los=nce"),
        "There is no role called 'los'. Did you mean 'loss'?",
    ),
    "unknown component": (
        ("train", "simclr", "--use", "loss=infonce"),
        "There is no loss called 'infonce'. Did you mean 'info-nce'?",
    ),
    "unknown component of a package": (
        ("train", "simclr", "--use", "loss=coview-moco:info-nce"),
        "There is no loss called 'coview-moco:info-nce'. Did you mean",
    ),
    "unknown key": (
        ("train", "moco", "--set", "negatives.sise=4"),
        "negatives 'queue' (coview-moco) has no setting 'sise'. Did you mean 'size'?",
    ),
    "unknown key of the loader": (
        ("train", "moco", "--set", "data.chanels=1"),
        "data has no setting 'chanels'. Did you mean 'channels'?",
    ),
    "unknown table": (
        ("train", "moco", "--set", "optimiser.lr=1"),
        "There is no setting called 'optimiser.lr'.",
    ),
    "unknown number of the recipe": (
        ("train", "moco", "--set", "epoch=1"),
        "There is no setting called 'epoch' in moco. Did you mean 'epochs'?",
    ),
    "unknown preset": (
        ("train", "moco", "--preset", "smal"),
        "There is no preset called 'smal'. Did you mean 'small'?",
    ),
    "unknown backbone": (
        ("train", "moco", "--backbone", "resnet10-quater"),
        "There is no backbone called 'resnet10-quater', neither registered nor in timm. "
        "Did you mean 'resnet10-quarter'?",
    ),
    "unknown optimiser": (
        ("train", "moco", "--use", "optimizer=sgdd"),
        "There is no optimizer called 'sgdd'. Did you mean 'sgd'?",
    ),
    "unknown data set": (
        ("train", "moco", "--data", "digit"),
        "There is no folder digit and no data set called 'digit'. Did you mean 'digits'?",
    ),
    "unknown observer": (
        ("train", "moco", "--observe", "progres", *LIMIT),
        "There is no observer called 'progres'. Did you mean 'progress'?",
    ),
    "unknown precision": (
        ("train", "moco", "--precision", "bf61"),
        "There is no precision called 'bf61'. Did you mean 'bf16'?",
    ),
    "unknown device": (
        ("train", "moco", "--device", "cdua"),
        "There is no device called 'cdua'. Did you mean 'cuda'?",
    ),
    "unknown format": (
        ("embed", "nowhere", "--out", "a.npp"),
        "There is no format called '.npp'. Did you mean '.npz'? Choose from: .csv, .npy, .npz,",
    ),
    "unknown option": (("train", "moco", "--epoch", "1"), "No such option '--epoch'."),
    "another word for an option": (
        ("train", "moco", "--learning-rate", "1"),
        "No such option '--learning-rate'. Did you mean '--lr'?",
    ),
    "another word, nearer to a wrong one": (
        ("views", "moco", "--tau", "1"),
        "No such option '--tau'. Did you mean '--temperature'?",
    ),
    "a setting without an option": (
        ("train", "moco", "--ema", "0.9"),
        "No such option '--ema'. Did you mean '--set ema=VALUE'?",
    ),
    "a text for a number": (
        ("train", "moco", "--set", "negatives.size=many"),
        "negatives.size must be a whole number, not 'many'.",
    ),
    "a fraction for a whole number": (
        ("train", "moco", "--set", "negatives.size=2.5"),
        "negatives.size must be a whole number, not 2.5.",
    ),
    "a text for true or false": (
        ("train", "moco", "--set", 'target.shuffle="false"'),
        "target.shuffle must be true or false, not 'false'.",
    ),
    "a list that is too short": (
        ("train", "moco", "--set", "views.crop_scale=[0.5]"),
        "views.crop_scale must be a list of 2 numbers, not [0.5].",
    ),
    "no schedule": (
        ("train", "moco", "--set", "target.decay=cosine(0.9)"),
        "target.decay: 'cosine(0.9)' is neither a number nor a schedule: write a number, ",
    ),
    "out of range": (
        ("train", "moco", "--set", "loss.temperature=0"),
        "loss.temperature must be above 0, not 0",
    ),
    "the end of a schedule out of range": (
        ("train", "moco", "--set", "target.decay=linear(0.9, 1.5)"),
        "target.decay must be between 0 and 1, not 1.5.",
    ),
    "not one of the choices": (
        ("train", "moco", "--set", "target.buffers=coppy"),
        "target.buffers must be own or copy, not 'coppy'. Did you mean 'copy'?",
    ),
    "no epochs": (("train", "moco", "--epochs", "0"), "epochs must be at least 1, not 0."),
    "one image a batch": (
        ("train", "moco", "--batch-size", "1"),
        "batch_size must be at least 2, not 1.",
    ),
    "images of no size": (
        ("train", "moco", "--image-size", "0"),
        "data.size must be above 0, not 0.",
    ),
    "a text for an option's number": (
        ("train", "moco", "--epochs", "ten"),
        "Invalid value for '--epochs': 'ten' is not a valid integer.",
    ),
    "no steps": (("train", "moco", "--max-steps", "0"), "Invalid value for '--max-steps': 0"),
    "micro-batches that do not divide": (
        ("train", "moco", "--batch-size", "16", "--accumulate", "3", *LIMIT),
        "accumulate = 3 must divide the batch of 16 into equal parts of 2 or more.",
    ),
    "use without a name": (
        ("train", "moco", "--use", "loss"),
        "--use takes ROLE=COMPONENT, not 'loss'.",
    ),
    "set without a value": (
        ("train", "moco", "--set", "loss.temperature"),
        "--set takes ROLE.KEY=VALUE, not 'loss.temperature'.",
    ),
    "a time between checkpoints": (
        ("train", "moco", "--save-every", "soon", *LIMIT),
        "--save-every takes steps (500) or minutes (10m), not 'soon'.",
    ),
    "nothing to train": (("train",), "Name a METHOD or recipe file to train, or a run to"),
    "a path where the data have none": (
        ("train", "moco", "--data", "digits:here"),
        "The data set digits comes with scikit-learn and takes no path",
    ),
    "no path where the data need one": (
        ("train", "moco", "--data", "folder"),
        "The data set folder needs a path: write folder:PATH.",
    ),
    "a missing folder": (
        ("train", "moco", "--data", "./nothing/here"),
        "There is no folder ./nothing/here.",
    ),
    "a missing folder by kind": (
        ("train", "moco", "--data", "folder:nothing"),
        "There is no folder nothing.",
    ),
    "a missing file of MNIST's format": (
        ("train", "moco", "--data", "idx:nothing"),
        "There is no file or folder nothing",
    ),
    "a data set that is not there": (
        ("train", "moco", "--data", "cifar10:nothing"),
        "The data set cifar10 is not in nothing",
    ),
    "a missing recipe file": (("train", "mine.toml"), "There is no recipe file mine.toml."),
    "a run that is not there": (
        ("evaluate", "knn", "nowhere", "--data", "digits"),
        "There is no exported backbone at nowhere.",
    ),
    "weights that are not there": (
        ("train", "moco", "--batch-size", "16", "--init", "nowhere", *LIMIT),
        "There is no exported backbone at nowhere.",
    ),
    "no temperature": (
        ("evaluate", "knn", "nowhere", "--temperature", "0"),
        "temperature must be above 0, not 0.0.",
    ),
    "half precision on a CPU": (
        ("train", "moco", "--device", "cpu", "--precision", "fp16"),
        "Precision fp16 needs a CUDA device; on a CPU use fp32 or bf16.",
    ),
}


@pytest.mark.parametrize("case", ONE_PROBLEM)
def test_one_sentence_for_one_problem(refused: Refused, case: str) -> None:
    arguments, expected = ONE_PROBLEM[case]
    (problem,) = refused(*arguments)
    assert expected in problem
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["train", "show", "views"])
def test_all_problems_at_once(refused: Refused, command: str) -> None:
    wrong = (
        *("--use", "loss=infonce", "--use", "targt=shared", "--use", "encoder=linear,predictor"),
        *("--set", "negatives.sise=4", "--set", "optimizer.lr=-1", "--set", "views.flip_p=often"),
        *("--set", "nonsense.key=1", "--epochs", "0", "--set", "data.holdout=2"),
        *("--preset", "smal", "--image-size", "0"),
    )
    out = ("--out", "v.png") if command == "views" else ()
    problems = refused(command, "moco", *wrong, *out)
    expected = (
        "There is no loss called 'infonce'. Did you mean 'info-nce'?",
        "There is no role called 'targt'. Did you mean 'target'?",
        "encoder takes one component, not 2.",
        "negatives 'queue' (coview-moco) has no setting 'sise'. Did you mean 'size'?",
        "optimizer.lr must be above 0, not -1.0.",
        "views.flip_p must be a number, not 'often'.",
        "There is no setting called 'nonsense.key'.",
        "epochs must be at least 1, not 0.",
        "data.holdout must be between 0 and 0.9, not 2.0.",
        "data.size must be above 0, not 0.",
        "There is no preset called 'smal'. Did you mean 'small'?",
    )
    for sentence in expected:
        assert len([p for p in problems if sentence in p]) == 1, sentence
    assert len(problems) == len(expected)


@pytest.mark.parametrize(
    "wrong", [("simcrl",), ("nothing.toml",), ("simclr", "--set", "temperature")]
)
def test_what_needs_no_data_is_refused_before_they_are_read(run: Any, wrong: Any) -> None:
    answer = run("train", *wrong, "--data", "digits", status=2)
    assert answer.errors and "reading" not in answer.stderr


def test_a_missing_device_is_named_with_what_there_is(refused: Refused) -> None:
    number = torch.cuda.device_count()
    (problem,) = refused("train", "moco", "--device", f"cuda:{number}", *LIMIT)
    assert problem == (
        f"Device 'cuda:{number}' is not there: this machine has {number} CUDA device(s). "
        "Use --device auto or cpu."
    )


def test_an_empty_folder_and_one_without_images(refused: Refused) -> None:
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("no image", encoding="utf-8")
    for name in ("empty", "texts"):
        (problem,) = refused("train", "moco", "--data", name, *LIMIT)
        assert name in problem and "image" in problem


def test_a_batch_larger_than_the_data_set(refused: Refused, idx: Path) -> None:
    options = ("--data", f"idx:{idx}", "--backbone", "resnet10-quarter", *LIMIT)
    assert refused("train", "simclr", "--batch-size", 49, *options) == [
        "The batch size must be between 1 and 48 (the number of training images), not 49."
    ]


def test_an_output_directory_that_holds_a_run(
    run: Callable[..., Any], refused: Refused, idx: Path, tiny: tuple[str, ...]
) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--out", "r", "--no-evaluate")
    run("train", "simclr", *options, "--max-steps", 1)
    kept = {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    (problem,) = refused("train", "simclr", *options, "--max-steps", 2)
    assert problem == (
        "r already holds a run. To continue it: coview train --resume r. Otherwise choose "
        "another --out."
    )
    assert kept == {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}


def test_an_output_directory_that_cannot_be(refused: Refused) -> None:
    Path("file").write_text("", encoding="utf-8")
    (problem,) = refused("train", "simclr", "--out", "file/r", *LIMIT)
    assert problem.startswith("file/r cannot be made for the run: ")


@pytest.mark.parametrize(
    "wrong", [("--set", "loss.nope=1"), ("--observe", "nope"), ("--save-every", "nope")]
)
def test_a_refused_request_leaves_nothing(refused: Refused, idx: Path, wrong: Any) -> None:
    refused("train", "simclr", "--data", f"idx:{idx}", "--out", "r", *wrong, *LIMIT)
    assert not Path("r").exists()


TOML = {
    "no TOML": ("epochs = = 3", ["mine.toml cannot be read as TOML"]),
    "unknown keys": (
        'base = "moco"\nepoch = 3\nlos = "nce"',
        ["There is no key called 'epoch'. Did you mean 'epochs'?", "'loss'?"],
    ),
    "no base": ('summary = "s"', ["incomplete recipe"]),
    "a base that is not there": ('base = "mocco"', ["Did you mean 'moco'?"]),
    "a table that is none": ('base = "moco"\nloss = 3', ["loss must be a table"]),
    "a table that names nothing": (
        'summary = "s"\n[views]\nflip_p = 0.5',
        ["views needs a name: use = NAME."],
    ),
    "a wrong value": ('base = "moco"\n[loss]\ntemperature = "warm"', ["loss.temperature: "]),
    "a wrong table of the loader": ('base = "moco"\ndata = 3', ["data must be a table"]),
    "wrong presets": ('base = "moco"\npresets = 3', ["presets must be a table"]),
    "a wrong key in a preset": (
        'base = "moco"\n[presets.tiny.loss]\ntemprature = 1.0',
        ["loss 'info-nce' (coview-cpc) has no setting 'temprature'. Did you mean 'temperature'?"],
    ),
    "a name that is no text": ('base = "moco"\nname = 3', ["name must be text, not 3."]),
    "a base that is no text": ("base = 3", ["base must be a method's name, not 3."]),
    "a wrong key in a preset's place": (
        'base = "moco"\n[presets.tiny]\nlos = "nce"',
        ["There is no key called 'los'. Did you mean 'loss'?"],
    ),
    "a preset that is none": ('base = "moco"\n[presets]\nsmall = 3', ["presets.small must be"]),
    "a preset that names nothing": (
        'base = "moco"\n[presets.tiny]\nnegatives = [{size = 3}, {size = 3}]',
        ["negatives needs a name: use = NAME."],
    ),
}


@pytest.mark.parametrize("case", TOML)
def test_wrong_recipe_files(refused: Refused, case: str) -> None:
    text, expected = TOML[case]
    Path("mine.toml").write_text(text, encoding="utf-8")
    problems = refused("train", "mine.toml", *LIMIT)
    assert len(problems) == len(expected)
    for problem, sentence in zip(problems, expected, strict=True):
        assert sentence in problem


def test_a_damaged_image_ends_with_a_sentence_and_status_1(
    run: Callable[..., Any], tiny: tuple[str, ...]
) -> None:
    Path("photos").mkdir()
    for name in ("a.png", "b.png"):
        Path("photos", name).write_bytes(b"this is no image")
    answer = run("train", "simclr", "--data", "photos", *tiny, *LIMIT, status=1)
    assert "photos/" in answer.errors[0] and "Traceback" not in answer.stderr


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_the_traceback_is_shown_on_demand(run: Callable[..., Any]) -> None:
    answer = run("--traceback", "train", "simcrl", status=2)
    assert "Traceback" in answer.stderr and answer.errors and answer.stdout == ""
