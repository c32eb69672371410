"""Other people's packages: one that works, and those that do not, which harm nobody else."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import coview
from coview.cli import main  # noqa: F401  (imported before other people's packages are)

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "example_plugin"
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example plugin, installed by pip into a directory of its own, without a network."""
    source = tmp_path_factory.mktemp("source") / "example"
    shutil.copytree(EXAMPLE, source)
    target = tmp_path_factory.mktemp("target")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--target", target)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *map(str, options), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


SESSION = """
import json, sys
from click.testing import CliRunner
from coview.cli import main

answers = []
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(main, arguments, prog_name="coview")
    answers.append([result.exit_code, result.stdout, result.stderr])
print(json.dumps(answers))
"""


def test_the_readmes_example_is_listed_trained_and_recomposed(
    installed: Path, idx: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    options = ["--data", f"idx:{idx}", *tiny, "--max-steps", "2", "--no-evaluate", "--json"]
    commands = {
        "list": ["list", "losses", "--json"],
        "lineage": ["lineage", "triplet", "--json"],
        "show": ["show", "triplet", "--json"],
        "train": ["train", "triplet", *options, "--out", "a"],
        "its loss in MoCo": [
            *("train", "moco", *options, "--out", "b", "--use", "loss=triplet"),
            *("--set", "loss.margin=0.5", "--set", "negatives.size=24"),
        ],
        "MoCo's queue in it": [
            *("train", "triplet", *options, "--out", "c"),
            *("--use", "negatives=in-batch,queue", "--use", "target=momentum"),
        ],
        "without negatives": ["train", "triplet", *options, "--use", "negatives=none"],
        "out of range": ["train", "triplet", *options, "--set", "loss.margin=-1"],
        "doctor": ["doctor", "--json"],
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SESSION],
        input=json.dumps(list(commands.values())),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = dict(zip(commands, json.loads(done.stdout), strict=True))
    refused = ("without negatives", "out of range")
    for name in (name for name in commands if name not in (*refused, "doctor")):
        assert answers[name][0] == 0, answers[name]
    (listed,) = (each for each in json.loads(answers["list"][1]) if each["name"] == "triplet")
    assert (listed["package"], listed["version"]) == ("coview-triplet", "0.1.0")
    assert listed["description"]
    roles = json.loads(answers["lineage"][1])[0]["roles"]
    assert roles["loss"] == [{"name": "triplet", "package": "coview-triplet"}]
    assert roles["negatives"] == [{"name": "in-batch", "package": "coview-cpc"}]
    margin = json.loads(answers["show"][1])["tables"]["loss"][0]["settings"]["margin"]
    assert margin == {
        "value": 0.2,
        "help": "how much closer the positive must be",
        "layer": "recipe",
    }
    for name in ("train", "its loss in MoCo", "MoCo's queue in it"):
        summary = json.loads(answers[name][1])
        assert summary["steps"] == 2 and math.isfinite(summary["loss"])
    used = {
        name: tomllib.loads(Path(name, "recipe.toml").read_text(encoding="utf-8")) for name in "abc"
    }
    assert used["a"]["loss"] == {"use": "triplet", "margin": 0.2}
    assert used["b"]["loss"] == {"use": "triplet", "margin": 0.5}
    assert used["b"]["negatives"]["use"] == "queue"
    assert [n["use"] for n in used["c"]["negatives"]] == ["in-batch", "queue"]
    facts = json.loads(Path("b/run.json").read_text(encoding="utf-8"))
    assert facts["packages"]["coview-triplet"] == "0.1.0"
    for name, reason in zip(refused, ("needs negatives", "margin must be above 0"), strict=True):
        status, stdout, stderr = answers[name]
        assert (status, stdout) == (2, "") and reason in stderr
    report = json.loads(answers["doctor"][1])
    assert report["packages"]["coview-triplet"]["brings"] == ["methods:triplet", "losses:triplet"]
    assert not report["packages"]["coview-triplet"]["broken"]


def test_the_example_is_about_forty_lines() -> None:
    lines = [
        line
        for path in EXAMPLE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    assert len(lines) <= 45
    assert {path.name for path in EXAMPLE.iterdir()} >= {"pyproject.toml", "src"}


@pytest.fixture
def package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Mapping[str, str], str], str]:
    """Write an installed distribution with one module, and put it on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(name: str, points: Mapping[str, str], source: str) -> str:
        module = name.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = []
        for place, value in points.items():
            group, key = place.split(":")
            lines.append(f"[coview.{group}]\n{key} = {module}:{value}\n")
        (info / "entry_points.txt").write_text("".join(lines), encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)
        return module

    return make


def failed(run: Run, *arguments: object, status: int = 1) -> str:
    """Run what cannot work; return its one sentence."""
    answer = run(*arguments, status=status)
    assert answer.stdout == "" and "Traceback" not in answer.stderr
    (problem,) = answer.errors
    return problem


def others_work(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    """Listing, the family tree, and a method that does not use the broken package."""
    assert {e["name"] for e in run("list", "methods", "--json").json} >= {"byol", "moco-v2"}
    assert {b["method"] for b in run("lineage", "--json").json} >= {"byol", "moco-v2"}
    assert "Commands:" in run("--help").stdout
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--no-evaluate")
    heads = ("--set", "encoder.hidden=32", "--set", "encoder.predictor_hidden=32")
    run("train", "byol", *options, *heads, "--out", "others")


def doctor(run: Run) -> list[str]:
    """Return the problems that doctor finds with the packages of this file."""
    found = json.loads(run("doctor", "--json", status=1).stdout)["problems"]
    return [problem for problem in found if "coview-x" in problem]


LOSS = """
    import attrs
    import torch
    from coview import hookimpl

    class Loss(torch.nn.Module):
        @attrs.frozen
        class Settings:
            pass

        def __init__(self, settings, plan):
            super().__init__()

        @hookimpl
        def compute_loss(self, encoded):
            return sum(z.square().mean() for z in encoded.queries.values())
"""
POINT = {"losses:x": "Loss"}
BY_LABEL = LOSS.replace("@attrs.frozen", 'needs_fields = ("labels",)\n\n        @attrs.frozen', 1)
BY_LABEL = BY_LABEL.replace(
    "def compute_loss(self, encoded):",
    """def compute_loss(self, encoded, batch):
            labels = batch.fields["labels"]
            # The images' classes in the fixture are their numbers modulo 3.
            assert len(labels) == 8 and torch.equal(labels, batch.indices % 3)""",
)


def test_a_field_reaches_the_component_that_asks_for_it(
    package: Run, run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    package("coview-x", POINT, BY_LABEL)
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 2, "--no-evaluate")
    run("train", "simclr", *options, "--use", "loss=x", "--accumulate", 2, "--out", "run")


def test_a_package_whose_import_raises(
    run: Run, package: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    points = {"methods:x": "recipe", "losses:x": "Loss", "commands:x": "command"}
    package("coview-x", points, "raise RuntimeError('no luck today')")
    for arguments in (("train", "x"), ("show", "x"), ("train", "moco", "--use", "loss=x"), ("x",)):
        problem = failed(run, *arguments)
        assert problem.startswith("Package coview-x 1.0 is broken: its ")
        assert "'x' (coview_x:" in problem
        assert problem.endswith("cannot be loaded: RuntimeError: no luck today")
    assert "x" in [e["name"] for e in run("list", "losses", "--json").json]
    (branch,) = (b for b in run("lineage", "--json").json if b["package"] == "coview-x")
    assert branch["roles"] == {} and "no luck today" in branch["summary"]
    assert "(brought by coview-x)" in run("--help").stdout
    assert len(doctor(run)) == 3
    others_work(run, idx, tiny)


def test_a_package_that_claims_taken_names(
    run: Run, package: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    points = {"losses:info-nce": "Loss", "methods:moco": "recipe", "commands:train": "command"}
    package("coview-x", points, LOSS)
    sentence = "The packages {} and {} both claim the {} {!r}."
    told = sentence.format("coview-cpc", "coview-x", "loss", "info-nce")
    assert failed(run, "train", "simclr", "--max-steps", 1, status=2).startswith(told)
    told = sentence.format("coview-moco", "coview-x", "method", "moco")
    assert failed(run, "train", "moco", "--max-steps", 1, status=2).startswith(told)
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--no-evaluate")
    for owner in ("coview-cpc", "coview-x"):
        changes = ("--use", f"loss={owner}:info-nce", "--out", owner)
        run("train", "coview-moco:moco", *options, *changes)
        facts = json.loads(Path(owner, "run.json").read_text(encoding="utf-8"))
        assert owner in facts["packages"]
    problems = doctor(run)
    for kind in ("loss 'info-nce'", "method 'moco'", "command 'train'"):
        assert len([p for p in problems if f"both claim the {kind}" in p]) == 1, problems
    assert "Train a method" in run("train", "--help").stdout
    others_work(run, idx, tiny)


BROKEN = {
    "a hook argument that does not exist": (
        LOSS.replace("self, encoded)", "self, encoded, banana)"),
        "loss 'x' of package coview-x does not fit its hooks: ",
        "banana",
    ),
    "a misspelt hook": (
        LOSS.replace("compute_loss(", "compute_los("),
        "loss 'x' of package coview-x implements a hook 'compute_los' that does not exist. "
        "Did you mean 'compute_loss'?",
        "",
    ),
    "a misspelt open hook beside the right one": (
        LOSS + "\n        @hookimpl\n        def update_targets(self):\n            pass\n",
        "loss 'x' of package coview-x implements a hook 'update_targets' that does not exist. "
        "Did you mean 'update_target'?",
        "",
    ),
    "a component without settings": (
        LOSS.replace("class Settings", "class Choices"),
        "Package coview-x: loss 'x' (coview_x:Loss) needs an attrs class called Settings "
        "inside it.",
        "",
    ),
    "settings that are no attrs class": (
        LOSS.replace("@attrs.frozen", ""),
        "Package coview-x: loss 'x' (coview_x:Loss) needs an attrs class called Settings "
        "inside it.",
        "",
    ),
    "no hook for its role": (
        LOSS.replace("compute_loss(self, encoded)", "gradients_ready(self)"),
        "loss 'x' of package coview-x fills 'loss', but has no @hookimpl compute_loss.",
        "",
    ),
    "a hook without its mark": (
        LOSS.replace("@hookimpl", ""),
        "loss 'x' of package coview-x fills 'loss', but has no @hookimpl compute_loss.",
        "",
    ),
    "no module": (
        LOSS.replace("(torch.nn.Module)", "").replace("super().__init__()", "pass"),
        "loss 'x' of package coview-x is not a torch.nn.Module.",
        "",
    ),
    "a name that its module does not have": (
        "",
        "Package coview-x 1.0 is broken: its loss 'x' (coview_x:Loss) cannot be loaded: ",
        "AttributeError",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_component_is_named_and_harms_nothing_else(
    run: Run, package: Run, idx: Path, tiny: tuple[str, ...], case: str
) -> None:
    source, sentence, detail = BROKEN[case]
    package("coview-x", POINT, source)
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--use", "loss=x", "--out", "r")
    problem = failed(run, "train", "simclr", *options)
    assert sentence in problem and detail in problem
    assert not Path("r/run.json").exists()
    others_work(run, idx, tiny)


def test_the_loss_that_is_broken_above_works_as_it_stands(
    run: Run, package: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    package("coview-x", POINT, LOSS)
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--use", "loss=x", "--out", "r")
    run("train", "simclr", *options)


def test_an_error_inside_a_component_names_it(
    run: Run, package: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    package(
        "coview-x", POINT, LOSS.replace("return sum", "raise KeyError('rows')\n            sum")
    )
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--use", "loss=x", "--out", "r")
    answer = run("train", "simclr", *options, status=1)
    assert answer.errors == ["KeyError: 'rows'"]
    assert "in loss 'x' of package coview-x" in answer.stderr and "Traceback" not in answer.stderr
    shown = run("--traceback", "train", "simclr", *options[:-1], "s", status=1)
    assert "Traceback" in shown.stderr and "coview_x.py" in shown.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("step_finishd(self)", "implements a hook 'step_finishd' that does not exist."),
        ("step_finished(self, banana)", "banana"),
    ],
)
def test_an_observer_that_does_not_fit(
    run: Run, package: Run, idx: Path, tiny: tuple[str, ...], name: str, said: str
) -> None:
    source = f"""
        from coview import hookimpl

        class Watcher:
            @hookimpl
            def {name}:
                pass
    """
    package("coview-x", {"observers:x": "Watcher"}, source)
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--out", "r", "--observe", "x")
    problem = failed(run, "train", "simclr", *options)
    assert said in problem and "coview-x" in problem
    assert not Path("r/run.json").exists()


def test_a_method_that_is_no_recipe(run: Run, package: Run) -> None:
    package("coview-x", {"methods:x": "recipe"}, "recipe = 3")
    assert failed(run, "train", "x") == (
        "Package coview-x: method 'x' (coview_x:recipe) must be a coview.Recipe, not int."
    )
    run("lineage")


def test_a_recipe_whose_parts_are_not_installed(run: Run, package: Run) -> None:
    source = """
        from coview import Recipe, Use

        recipe = Recipe(
            summary="s", views=Use("simclr"), encoder=Use("holographic"), loss=Use("info-nce"),
            negatives=Use("in-batch"), optimizer=Use("sgd"), schedule=Use("cosine"),
        )
    """
    package("coview-x", {"methods:x": "recipe"}, source)
    problem = failed(run, "train", "x", status=2)
    assert problem.startswith("There is no encoder called 'holographic'.")
    rows = [line.split(maxsplit=2) for line in run("lineage", "x").stdout.splitlines()]
    assert ["encoder", "holographic", "(not installed)"] in rows


def test_a_command_that_a_package_brings(run: Run, package: Run) -> None:
    source = """
        import click

        @click.command()
        @click.argument("name")
        def command(name):
            "Greet."
            click.echo(f"hello {name}")
    """
    package("coview-x", {"commands:greet": "command"}, source)
    assert run("greet", "you").stdout == "hello you\n"
    assert "greet" in run("--help").stdout
    assert failed(run, "gret", "you", status=2).startswith(
        "There is no command called 'gret'. Did you mean 'greet'?"
    )


ENGINE = """
    import attrs
    import torch
    from torch import nn

    from coview.components import EvaluationProtocol
    from coview.optim.optimizers import OptimizerMaker, OptimizerSettings
    from coview.optim.schedules import LearningRateSchedule
    from coview.settings import setting
    from coview.views import Chain
    from coview.views.operations import ViewBackend

    class Signs(OptimizerMaker):
        "Steps of one size, whatever the gradient's."

        @attrs.frozen
        class Settings(OptimizerSettings):
            twist: float = setting(0.5, "of nothing")

        @staticmethod
        def make(groups, settings, device):
            return torch.optim.Rprop(groups, lr=settings.lr)

    class Half(LearningRateSchedule):
        "Half the rate, always."

        @attrs.frozen
        class Settings:
            share: float = setting(0.5, "of the peak")

        def __init__(self, settings, plan):
            self.share = settings.share

        def rate(self, peak, number):
            return peak * self.share

    @attrs.frozen
    class Guess:
        classes: int = setting(3, "to guess from")

    @attrs.frozen
    class Guessed:
        top1: float
        top5: float
        mean_per_class: float
        train_images: int
        test_images: int

        def as_dict(self):
            return {"protocol": "a guess", **attrs.asdict(self)}

    class Guessing(EvaluationProtocol):
        "Guess."

        probe_settings = Guess

        @staticmethod
        def probe(network, data, settings, *, seed, batch_size, device, workers, save):
            share = 1 / settings.classes
            return Guessed(share, 1.0, share, len(data.train), len(data.test))

    @attrs.frozen
    class Count:
        split: str = setting("train", "which images to count")

    class Counting(EvaluationProtocol):
        "Count images."

        evaluate_settings = Count

        @staticmethod
        def evaluate(subject, settings):
            images = len(getattr(subject.data, settings.split))
            return {"protocol": "counted", "images": images, "width": subject.network.width}

    class Plain(ViewBackend):
        "The whole image, as it is."

        @staticmethod
        def chain(descriptions, last, compile, dtype):
            size = descriptions[0].size
            return Chain([lambda image: image[:, :size, :size], last])

    class Few:
        title = "few"

        @staticmethod
        def find(name):
            return few if name == "few-features" else None

        @staticmethod
        def names():
            return ["few-features"]

    def few(channels, image_size, settings):
        net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 8))
        net.num_features = 8
        return net
"""
ENGINE_POINTS = {
    "optimizers:signs": "Signs",
    "schedules:half": "Half",
    "protocols:guess": "Guessing",
    "protocols:count": "Counting",
    "view_backends:plain": "Plain",
    "catalogues:backbones": "Few",
}


def test_a_stranger_brings_what_the_core_brings(
    run: Run, refused: Run, package: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    """Optimisers, schedules, protocols, view backends, catalogues: registered in the same way."""
    package("coview-engine", ENGINE_POINTS, ENGINE)
    listed = run("list", "optimizers", "--json").json
    owners = {e["name"]: e["package"] for e in listed}
    assert (owners["sgd"], owners["signs"]) == ("coview", "coview-engine")
    assert "Steps of one size" in run("list", "optimizers").stdout
    parts = ("--use", "optimizer=signs", "--set", "optimizer.lr=0.25", "--use", "schedule=half")
    parts += ("--set", "views.backend=plain", "--use", "probe=guess", "--set", "probe.classes=4")
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 2, "--no-evaluate")
    run("train", "simclr", *options, *parts, "--backbone", "few-features", "--out", "r")
    lines = Path("r/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["lr"] == 0.125
    recipe = tomllib.loads(Path("r/recipe.toml").read_text(encoding="utf-8"))
    assert recipe["optimizer"]["twist"] == 0.5 and recipe["schedule"]["share"] == 0.5
    facts = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert facts["packages"]["coview-engine"] == "1.0"
    said = run("evaluate", "linear", "r", "--protocol", "paper", "--json").json
    assert (said["protocol"], said["top1"]) == ("a guess", 0.25)
    said = run("evaluate", "guess", "r", "--set", "classes=5", "--json").json
    assert (said["protocol"], said["top1"]) == ("a guess", 0.2)
    counted = coview.evaluate("r", "coview-engine:count", split="test")
    assert repr(counted) == f"count: images 24, width {counted['width']} on idx:{idx} (counted)"
    text = run("evaluate", "count", "r", "--set", "split=test").stdout
    assert text == f"{counted}\n"
    assert "  count      Count images\n" in run("evaluate", "--help").stdout
    assert refused("evaluate", "count", "r", "--set", "spilt=test") == [
        "count has no setting 'spilt'. Did you mean 'split'? Its settings: split."
    ]
    assert refused("show", "simclr", "--use", "optimizer=sings", "--set", "schedule.shar=1") == [
        "There is no optimizer called 'sings'. Did you mean 'signs'? Choose from: adamw, larc, "
        "lars, sgd, signs.",
        "schedule 'cosine' (coview) has no setting 'shar'. Its settings: warmup_epochs, "
        "warmup_start, warmup_count, warmup_closed, final, per, first_epoch.",
    ]
    (problem,) = refused("show", "simclr", "--set", "views.backend=plane")
    assert "Did you mean 'plain'?" in problem
    (problem,) = refused("show", "simclr", "--backbone", "few-feature")
    assert problem == (
        "There is no backbone called 'few-feature', neither registered nor in timm or few. Did "
        "you mean 'few-features'?"
    )
    (problem,) = refused("show", "simclr", "--use", "finetune=guess")
    assert problem == ("Evaluation protocol 'guess' (coview-engine) cannot be used for finetune.")


SLIPS = {
    "passes_gradients = True": "'passes_gradients' that coview does not know. Did you mean "
    "'passes_gradient'?",
    "needs = {'negative': 'told from'}": "needs must list roles",
    "def gaurds(self): return ()": "'gaurds', which coview does not know. Did you mean 'guards'?",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_an_attribute_is_found_before_anything_is_built(
    run: Run, package: Run, slip: str
) -> None:
    source = LOSS.replace("        @attrs.frozen\n", f"        {slip}\n\n        @attrs.frozen\n")
    package("coview-x", POINT, source)
    problem = failed(run, "train", "simclr", "--use", "loss=x", "--dry-run")
    assert problem.startswith("loss 'x' of package coview-x") and SLIPS[slip] in problem


def test_a_group_of_parameters_that_there_are_none_of(
    run: Run, package: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    """A slip in a pattern would leave the parameters that were meant as they are."""
    source = LOSS.replace(
        "        @hookimpl\n",
        "            self.scale = torch.nn.Parameter(torch.ones(()))\n\n"
        "        def parameter_groups(self):\n"
        "            from coview.components import ParameterGroup\n"
        "            return {'scales': ParameterGroup(fixed_rate=True)}\n\n"
        "        @hookimpl\n",
    )
    package("coview-x", POINT, source)
    options = ("--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--no-evaluate")
    problem = failed(run, "train", "simclr", *options, "--use", "loss=x")
    assert problem == (
        "Loss.parameter_groups() names 'scales', which no parameter matches. Its parameters start "
        "with: scale."
    )
