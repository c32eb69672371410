"""The conformance kit: a good plugin keeps every promise, and each is broken by a bad one."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coview
from coview.recipes.recipe import method_names
from coview.testing import NotFiniteError, NotTried, Subject, Trial, promises
from coview.testing.checks import chosen
from coview.testing.kit import PROMISES

Run = Callable[..., Any]

RECIPE = """
    from coview import Recipe, Use

    recipe = Recipe(
        summary="s", views=Use("good"), encoder=Use("good"), target=Use("good"),
        negatives=Use("good"), loss=Use("good"), optimizer=Use("sgd", lr=0.1),
        schedule=Use("constant"), presets={"small": {"loss": {"scale": 2.0}}},
    )
"""
PARTS = '''
    import attrs
    import torch
    from torch import nn
    from coview import Negatives, Targets, hookimpl, setting
    from coview.losses.similarity import unit
    from coview.nn.encoder import Encoder as Base, EncoderSettings
    from coview.distributed import gather
    from coview.views import Augmentation, CropViews

    class Views(CropViews):
        """Two crops."""

        @attrs.frozen
        class Settings(Augmentation):
            """None of its own."""

        def __init__(self, settings, plan):
            super().__init__([settings] * 2, plan)

        @hookimpl
        def generate_views(self, batch, step):
            views = super().generate_views(batch, step)
            return views

        def evaluation_views(self, images):
            return super().evaluation_views(images)

    class Encoder(Base):
        """A linear head."""

        @attrs.frozen
        class Settings(EncoderSettings):
            """A width."""

            dim: int = setting(16, "width")

        def __init__(self, settings, plan):
            super().__init__(settings, plan, settings.dim)
            self.projector = nn.Linear(self.features, settings.dim)

        def backbone(self):
            return self.trunk

    class Target(nn.Module):
        """A slow linear map of the projections."""

        @attrs.frozen
        class Settings:
            """None."""

        def __init__(self, settings, plan):
            super().__init__()
            self.map = nn.Linear(plan.dim, plan.dim).requires_grad_(False)
            self.register_buffer("seen", torch.zeros(()))

        @hookimpl
        def encode_targets(self, encoded, batch):
            with torch.no_grad():
                keys = {s: self.map(z) for s, z in encoded.projections.items()}
            return Targets(keys, encoded.identities)

        @hookimpl
        def update_target(self, batch):
            self.seen.add_(1)
            self.map.weight.mul_(1 - 0.01 * self.seen)

    class Memory(nn.Module):
        """The last keys."""

        @attrs.frozen
        class Settings:
            """None."""

        def __init__(self, settings, plan):
            super().__init__()
            self.register_buffer("rows", torch.zeros(plan.batch_size, plan.dim))

        @hookimpl
        def draw_negatives(self, targets):
            return Negatives(dict.fromkeys(targets.keys, self.rows), dict.fromkeys(targets.keys))

        @hookimpl
        def update_target(self, targets):
            self.rows.copy_(gather(targets.keys[0]))

    class Loss(nn.Module):
        """Near the key, far from the memory."""

        @attrs.frozen
        class Settings:
            """A factor."""

            scale: float = setting(1.0, "what the loss is multiplied by")

        def __init__(self, settings, plan):
            super().__init__()
            self.scale = settings.scale

        @hookimpl
        def compute_loss(self, encoded, targets, negatives, step):
            terms = []
            for query, key in encoded.pairs:
                z = unit(encoded.queries[query])
                near = (z - unit(targets.keys[key])).square().sum(1)
                far = (z @ negatives[0].vectors[key].T).square().mean(1)
                terms.append((near + far).mean())
            loss = self.scale * torch.stack(terms).mean()
            return loss
'''
POINTS = {
    "methods": "coview_good:recipe",
    "views": "coview_good.parts:Views",
    "encoders": "coview_good.parts:Encoder",
    "targets": "coview_good.parts:Target",
    "negatives": "coview_good.parts:Memory",
    "losses": "coview_good.parts:Loss",
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install the package coview-good, with a change in its recipe or its parts."""
    site = tmp_path / "site"
    folder, info = site / "coview_good", site / "coview_good-1.0.dist-info"

    def install(*changes: tuple[str, str]) -> None:
        recipe, parts = textwrap.dedent(RECIPE), textwrap.dedent(PARTS)
        for old, new in changes:
            assert (recipe + parts).count(old) == 1, old
            recipe, parts = recipe.replace(old, new), parts.replace(old, new)
        folder.mkdir(parents=True)
        info.mkdir()
        (folder / "__init__.py").write_text(recipe, encoding="utf-8")
        (folder / "parts.py").write_text(parts, encoding="utf-8")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coview-good\nVersion: 1.0\n")
        lines = [f"[coview.{group}]\ngood = {value}\n" for group, value in POINTS.items()]
        (info / "entry_points.txt").write_text("".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        for name in ("coview_good", "coview_good.parts"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    return install


def test_a_good_plugin_keeps_every_promise(plugin: Run, run: Run) -> None:
    plugin()
    found = run("check", "coview-good", "--fast", "--json").json
    assert not [r for r in found["results"] if r["status"] != "ok"]
    tried = [r["promise"] for r in found["results"] if r["subject"] == "coview-good:good"]
    assert tried == [promise.name for promise in PROMISES if not promise.slow]
    assert found["ok"] == len(tried) + 3 * 5 and found["failed"] == 0
    (accumulated,) = (r for r in found["results"] if r["promise"] == "accumulates")
    assert accumulated["sentence"] == "a step in micro-batches equals one on the whole batch"


LOSS = "return loss"
BROKEN = {
    "a recipe that cannot be imported": ("loads", "from coview import Recipe, Use", "1 / 0"),
    "a recipe that imports torch": (
        "imports-no-torch",
        "from coview import Recipe, Use",
        "import torch\nfrom coview import Recipe, Use",
    ),
    "another plugin's code": (
        "imports-no-other-plugin",
        "from coview.losses.similarity import unit",
        "from coview.losses.similarity import unit\nfrom coview_cpc import info_nce",
    ),
    "a preset that names nothing": ("resolves", '"scale": 2.0', '"scael": 2.0'),
    "a default that is no value of its type": (
        "reads-back",
        'dim: int = setting(16, "width")',
        'dim: int = setting(16.5, "width")',
    ),
    "a setting without a word": (
        "documents-its-settings",
        'scale: float = setting(1.0, "what the loss is multiplied by")',
        "scale: float = 1.0",
    ),
    "a setting of any type": ("refuses-wrong-settings", "scale: float", "scale: object"),
    "weights of Python's generator": (
        "builds",
        'self.register_buffer("seen", torch.zeros(()))',
        'import random\n        self.register_buffer("seen", torch.tensor(random.random()))',
    ),
    "a wrong argument": ("builds", "def compute_loss(self, encoded", "def compute_loss(self, enc"),
    "views of another size": (
        "fit-their-layout",
        "        return views",
        "        return attrs.evolve(views, crops=tuple(c[..., 2:] for c in views.crops))",
    ),
    "views without randomness": (
        "follow-the-step",
        "super().generate_views(batch, step)",
        "super().generate_views(batch, attrs.evolve(step, number=0, seed=0))",
    ),
    "evaluation views that vary": (
        "evaluate-without-randomness",
        "return super().evaluation_views(images)",
        "return super().evaluation_views(images + torch.rand(1))",
    ),
    "a loss of each row": ("gives-a-loss-with-gradient", LOSS, "return loss.expand(3)"),
    "a loss that is not finite": ("gives-a-loss-with-gradient", LOSS, "return loss / 0"),
    "a loss without gradient to a layer": (
        "gives-a-loss-with-gradient",
        "self.projector = nn.Linear(self.features, settings.dim)",
        "self.projector = nn.Linear(self.features, settings.dim)\n"
        "        self.unused = nn.Linear(2, 2)",
    ),
    "a target that is trained": (
        "gives-a-loss-with-gradient",
        "self.map = nn.Linear(plan.dim, plan.dim).requires_grad_(False)",
        "self.map = nn.Linear(plan.dim, plan.dim)",
        "with torch.no_grad():",
        "if True:",
    ),
    "a gradient that leads up": ("descends", LOSS, "return 2 * loss.detach() - loss"),
    "torch's own generator": (
        "draws-from-the-step-alone",
        LOSS,
        "return loss * (1 + torch.rand(()))",
    ),
    "labels": (
        "sees-no-labels",
        "self.seen.add_(1)",
        'self.seen.add_(1)\n        getattr(batch, "labels", None)',
    ),
    "a memory that is written when it is read": (
        "reads-memory-before-writing",
        "return Negatives(dict",
        "self.rows.add_(1)\n        return Negatives(dict",
    ),
    "a value that is read back": (
        "never-waits-for-the-device",
        LOSS,
        "return loss if loss > 0 else -loss",
    ),
    "three channels or none": (
        "takes-other-channels",
        LOSS,
        "return loss / self.more",
        "self.scale = settings.scale",
        "self.scale = settings.scale\n        self.more = plan.channels - 1",
    ),
    "a counter that is not saved": (
        "goes-on-exactly",
        'self.register_buffer("seen", torch.zeros(()))',
        "self.seen = torch.zeros(())",
    ),
    "another gradient in a micro-batch": (
        "accumulates",
        LOSS,
        "return loss if step.micro == 0 else loss.detach() + 0 * loss",
    ),
    "a sum over the rows of a micro-batch": (
        "accumulates",
        "(near + far).mean()",
        "(near + far).sum()",
    ),
    "a backbone that is not saved": (
        "exports",
        "    def backbone(self):\n        return self.trunk",
        "    def backbone(self):\n        return Shifted(self.trunk)",
        "class Views(CropViews):",
        """class Shifted(nn.Module):
    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.num_features, self.shift = trunk, trunk.num_features, torch.rand(1)

    def forward(self, images):
        return self.trunk(images) + self.shift

class Views(CropViews):""",
    ),
    "a loss that begins in a late epoch, and draws": (
        "holds-in-the-last-epoch",
        LOSS,
        "return loss if step.epoch < 100 else loss * (1 + torch.rand(()))",
    ),
    "a loss that is a sum over rows": (
        "two-processes-equal-one",
        "(near + far).mean()",
        "(near + far).sum()",
    ),
}


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("loss", "a step in micro-batches equals one on the whole batch"),
        (
            "loss + sum(z.std(dim=0).mean() for z in encoded.queries.values())",
            "its loss compares the rows of a batch with each other",
        ),
        (
            "loss * (1 + torch.rand((), generator=step.generator))",
            "its loss draws at random, in each micro-batch anew; rows are not compared",
        ),
    ],
)
def test_why_micro_batches_are_no_whole_batch_is_found_out(
    plugin: Run, run: Run, returned: str, said: str
) -> None:
    plugin(("return loss\n", f"return {returned}\n"))
    (result,) = run("check", "good", "--only", "accumulates", "--json").json["results"]
    assert result["status"] == "ok" and result["sentence"] == said


def test_every_promise_has_a_broken_plugin() -> None:
    assert {case[0] for case in BROKEN.values()} == {promise.name for promise in PROMISES}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_found(plugin: Run, run: Run, case: str) -> None:
    promise, *texts = BROKEN[case]
    plugin(*zip(texts[::2], texts[1::2], strict=True))
    found = run("check", "good", "--only", promise, "--json", status=1).json
    (result,) = found["results"]
    assert result["status"] == "failed" and result["promise"] == promise
    assert "coview-good" in result["sentence"] and "\n" not in result["sentence"]


PROJECT = """return self.trunk

    def project(self, *given, **more):
        features, made = super().project(*given, **more)
        return features, {slot: z / 0 * 0 for slot, z in made.items()}
"""
NOT_FINITE = {
    "a loss": (
        ("return loss\n", "return loss / 0\n"),
        "gives-a-loss-with-gradient: the loss of step 0 is not finite: loss 'good' of package "
        "coview-good gives inf, though all that it is given is finite",
        "it is given queries[1] between -",
    ),
    "what an encoder gives": (
        ("return self.trunk\n", PROJECT),
        "gives-a-loss-with-gradient: the loss of step 0 is not finite, because encoder 'good' of "
        "package coview-good gives projections[0] that is not finite",
        "projections[0], row 0, columns from 0: [nan, ",
    ),
    "a gradient": (
        ("return loss\n", "return loss + (0 * encoded.queries[0]).square().sum().sqrt()\n"),
        "gives-a-loss-with-gradient: the loss of step 0 is 3.",
        "gradient of encoder.trunk.conv1.weight, row 0, columns from 0: [nan, ",
    ),
    "what a target becomes": (
        ("self.map.weight.mul_(1 - 0.01 * self.seen)", "self.map.weight.div_(self.seen - 1)"),
        "draws-from-the-step-alone: after step 0, target.map.weight of target 'good' of package "
        "coview-good is not finite, though its loss is",
        "target.map.weight, row 0, columns from 0: [",
    ),
    "a loss in a late epoch": (
        ("return loss\n", "return loss if step.epoch < 199 else loss / 0\n"),
        "holds-in-the-last-epoch: the loss of step 796 is not finite: loss 'good' of package "
        "coview-good gives inf, though all that it is given is finite; in epoch 200 of 200, which "
        "breaks gives-a-loss-with-gradient",
        "it is given queries[1] between -",
    ),
}


@pytest.mark.parametrize("case", NOT_FINITE)
def test_what_is_not_finite_is_told_once(plugin: Run, run: Run, case: str) -> None:
    change, sentence, evidence = NOT_FINITE[case]
    plugin(change)
    lines = run("check", "good", "--fast", status=1).stdout.splitlines()
    (place,) = (n for n, line in enumerate(lines) if line.startswith("failed"))
    assert lines[place].startswith(f"failed  good  {sentence}")
    assert lines[place + 1].strip().startswith(evidence)
    promise = sentence.partition(":")[0]
    skipped = [line for line in lines if line.startswith("skipped")]
    assert all(line.endswith(f" is not finite, as {promise} says") for line in skipped)
    assert bool(skipped) != (case == "a loss in a late epoch")


def test_of_several_losses_the_one_at_fault_is_named(plugin: Run, run: Run) -> None:
    plugin(("return loss\n", "return loss / 0\n"))
    use = ("--use", "loss=info-nce,coview-good:good", "--only", "gives-a-loss-with-gradient")
    (result,) = run("check", "simclr", *use, "--json", status=1).json["results"]
    assert "loss 'coview-good:good' of package coview-good gives inf" in result["sentence"]
    assert "simclr" not in result["sentence"]
    assert "loss 'info-nce' is " in result["evidence"] and "is inf" not in result["evidence"]


def test_a_source_of_negatives_that_are_not_finite_is_named(plugin: Run, run: Run) -> None:
    plugin(("torch.zeros(plan.batch_size, plan.dim)", "torch.full((4, plan.dim), torch.inf)"))
    use = ("--use", "negatives=in-batch,coview-good:good", "--only", "gives-a-loss-with-gradient")
    (result,) = run("check", "simclr", *use, "--json", status=1).json["results"]
    assert (
        "because negatives 'coview-good:good' of package coview-good gives " in result["sentence"]
    )
    assert "rows 0" not in result["evidence"] and "[inf, inf" in result["evidence"]


def test_a_promise_that_the_first_epoch_breaks_is_told_once(plugin: Run, run: Run) -> None:
    plugin(("return loss\n", "return 2 * loss.detach() - loss\n"))
    found = run("check", "good", "--fast", "--json", status=1).json["results"]
    assert [r["promise"] for r in found if r["status"] == "failed"] == ["descends"]
    only = ("--only", "holds-in-the-last-epoch")
    (late,) = run("check", "good", *only, "--json", status=1).json["results"]
    assert "in epoch 200 of 200, which breaks descends" in late["sentence"]


def test_tests_of_a_package_tell_it_once_too(plugin: Run) -> None:
    plugin(("return loss\n", "return loss / 0\n"))
    first, second = promises("good", only=["gives-a-loss-with-gradient", "descends"])
    for _ in range(2):
        with pytest.raises(NotFiniteError, match="the loss of step 0 is not finite"):
            first()
    with pytest.raises(NotTried, match="as gives-a-loss-with-gradient says"):
        second()


@pytest.mark.slow
def test_processes_are_compared_in_the_last_epoch_too(plugin: Run, run: Run) -> None:
    late = "step.epoch >= 100"
    plugin(("(near + far).mean()", f"(near + far).sum() if {late} else (near + far).mean()"))
    only = ("--only", "two-processes-equal-one")
    (result,) = run("check", "good", *only, "--json", status=1).json["results"]
    assert "differs from a single process's by " in result["sentence"]
    assert result["sentence"].endswith("; in epoch 200 of 200")


def test_a_recipe_of_one_epoch_has_no_other_last_one(run: Run) -> None:
    only = ("--only", "holds-in-the-last-epoch", "--json")
    (tried,) = run("check", "simclr", "--set", "epochs=2", *only).json["results"]
    assert tried["status"] == "ok" and tried["sentence"] == "epoch 2"
    (result,) = run("check", "simclr", "--set", "epochs=1", *only).json["results"]
    assert result["status"] == "skipped" and "has one epoch" in result["sentence"]


def test_a_field_that_was_not_asked_for_is_told(plugin: Run, run: Run) -> None:
    plugin(("with torch.no_grad():", 'batch.fields["labels"]\n        with torch.no_grad():'))
    (result,) = run("check", "good", "--only", "sees-no-labels", "--json", status=1).json["results"]
    assert "a component reads the field 'labels': list it in needs_fields" in result["sentence"]


def test_a_method_that_asks_for_labels_keeps_its_promises(plugin: Run, run: Run) -> None:
    plugin(
        ("return loss\n", 'return loss * (1 + 0 * batch.fields["labels"].sum())\n'),
        ("def compute_loss(self, encoded", "def compute_loss(self, batch, encoded"),
        (
            'far from the memory."""',
            'far from the memory."""\n\n    needs_fields = ("labels",)',
        ),
    )
    names = ("sees-no-labels", "accumulates", "two-processes-equal-one")
    only = [word for name in names for word in ("--only", name)]
    assert run("check", "good", *only, "--json").json["ok"] == 3


def test_a_plugin_that_does_not_build_is_not_tried_further(plugin: Run, run: Run) -> None:
    plugin(("def draw_negatives(self, targets)", "def draw_negative(self, targets)"))
    answer = run("check", "good", "--fast", status=1)
    lines = answer.stdout.splitlines()
    (failed,) = (line for line in lines if line.startswith("failed"))
    assert failed == (
        "failed  good  builds: negatives 'good' of package coview-good implements a hook "
        "'draw_negative' that does not exist. Did you mean 'draw_negatives'?"
    )
    skipped = [line for line in lines if line.startswith("skipped")]
    assert len(skipped) == len(chosen(fast=True)) - 7
    assert all(line.endswith(": without builds") for line in skipped)
    assert "Traceback" not in answer.stderr


def test_a_package_is_checked_whole(plugin: Run, run: Run) -> None:
    plugin(('"""Near the key, far from the memory."""', ""))
    found = run("check", "coview-good", "--only", "loads", "--json", status=1).json
    by_thing = {(r["subject"], r["promise"]): r for r in found["results"]}
    assert by_thing["losses:good", "loads"]["status"] == "ok"
    loss = by_thing["losses:good", "has-settings"]
    assert loss["status"] == "failed"
    assert loss["sentence"] == "package coview-good: loss 'good' has no docstring"
    assert by_thing["negatives:good", "has-its-hook"]["status"] == "ok"


def test_a_recomposition_is_checked(run: Run) -> None:
    use = ("--use", "negatives=queue", "--use", "target=momentum", "--only", "goes-on-exactly")
    found = run("check", "simclr", *use, "--set", "negatives.size=24", "--json").json
    assert found["ok"] == 1 and found["checked"] == "simclr"


SHOWN = {
    "a counter that is not saved": "without a pause and after loading: row 0",
    "weights of Python's generator": "components.target.seen, the first build and the second: 0.",
    "a memory that is written when it is read": "before the forward pass and after it: row 0",
    "another gradient in a micro-batch": "whole and in halves: ",
    "evaluation views that vary": "crops[0], first and again: row 0, columns ",
}


@pytest.mark.parametrize("case", SHOWN)
def test_a_failure_shows_the_numbers_and_the_page(plugin: Run, run: Run, case: str) -> None:
    promise, *texts = BROKEN[case]
    plugin(*zip(texts[::2], texts[1::2], strict=True))
    failed, evidence, page, counts = run(
        "check", "good", "--only", promise, status=1
    ).stdout.splitlines()
    assert failed.startswith("failed  good  " + promise) and counts == "0 ok, 1 failed, 0 skipped"
    assert SHOWN[case] in evidence and len(evidence) < 300
    assert f"docs/authors/promises.md#{promise}" in page
    double = next(p.double for p in PROMISES if p.name == promise)
    assert ("(in float64)" in failed) == double


def test_a_method_is_checked_on_real_data_with_another_network(
    run: Run, refused: Run, idx: Path
) -> None:
    only = ("--only", "builds", "--only", "fit-their-layout", "--only", "takes-other-channels")
    options = ("--data", f"idx:{idx}", "--backbone", "resnet10-quarter-no-norm", "--device", "cpu")
    found = run("check", "simclr", *options, *only, "--json").json
    assert found["ok"] == 3 and {r["precision"] for r in found["results"]} == {"float32"}
    subject = Subject("simclr", data=f"idx:{idx}")
    batch, again = subject.batch(1), subject.batch(1)
    assert subject.plan().dataset_size == 48 and subject.plan().channels == 1
    assert batch.images.shape == (16, 1, 32, 32) and batch.images.equal(again.images)
    loaded = subject.loaded
    assert loaded is not None
    assert batch.images.equal(loaded.train.images[batch.indices])
    assert not batch.indices.equal(subject.batch(2).indices)
    assert "There is no file or folder" in refused("check", "simclr", "--data", "idx:none")[0]
    assert "cuda" in refused("check", "simclr", "--device", "cudda")[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("simclrr",), "There is no method or package called 'simclrr'. Did you mean 'simclr'?"),
        (("simclr", "--only", "build"), "There is no promise called 'build'. Did you mean"),
        ((), "Name a METHOD or a PACKAGE."),
        (("coview-moco", "--set", "loss.temperature=1"), "apply to a method, not to a package."),
    ],
)
def test_a_wrong_request(refused: Run, arguments: tuple[str, ...], sentence: str) -> None:
    (problem,) = refused("check", *arguments)
    assert sentence in problem


def test_promises_are_explained(run: Run) -> None:
    text = run("check", "--explain").stdout
    for promise in PROMISES:
        assert promise.name in text and promise.meaning.splitlines()[0] in text


def test_promises_of_a_recipe_object_skip_what_is_of_packages() -> None:
    recipe = coview.recipe("simclr")
    by_name = {str(p): p for p in promises(recipe, only=["imports-no-torch", "builds"])}
    by_name["builds"]()
    with pytest.raises(NotTried, match="not registered by a package"):
        by_name["imports-no-torch"]()
    assert Subject(recipe).name == "simclr"


# What no other test asks of every method; the others take a minute, and are slow.
OFTEN = ("gives-a-loss-with-gradient", "draws-from-the-step-alone", "goes-on-exactly")
EVERY = [
    pytest.param(
        trial,
        id=f"{name}-{trial}",
        marks=[] if str(trial) in OFTEN and name != "cpc-v2" else [pytest.mark.slow],
    )
    for name in method_names()
    for trial in promises(name, fast=True)
    if name != "cpc-audio"
]
# Signals of the paper's length would take minutes.
SHORT = {"views.window": 1265, "encoder.last": 3}
EVERY += [
    pytest.param(trial, id=f"cpc-audio-{trial}", marks=pytest.mark.slow)
    for trial in promises("cpc-audio", fast=True, image_size=1300, set=SHORT)
]


@pytest.mark.parametrize("promise", EVERY)
def test_every_method_keeps_its_promises(promise: Trial) -> None:
    promise()
