"""Other libraries' loops beside coview's: equal terms, sentences, and lightly's where it is."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from click.testing import Result

import coview
from coview.errors import CoviewError, RequestError
from coview.schedules import Schedule
from coview.studies import KNN, peers
from coview.studies.jobs import RESULT, Order
from coview_report.comparing import PACES
from coview_report.lightly_peer import Lightly, of_the_recipe, of_the_views, scale

Command = Callable[..., Result]
SMALL = ("--backbone", "resnet10-quarter", "--preset", "none", "--image-size", 24)
STAND_IN = '''
import json
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from coview.studies.peers import Loop, Momentum, Peer

SEEN = Path({seen!r})


class Recorded(Momentum):
    def __init__(self, trunk):
        super().__init__(trunk, lambda: nn.Linear(trunk.num_features, 4))
        self.seen = {{"begin": [], "ready": 0, "finish": 0, "rows": [], "size": None}}
        self.seen["drawn"] = [random.random(), np.random.rand(), torch.rand(()).item()]

    def loss(self, first, second):
        self.seen["rows"].append(len(first))
        self.seen["size"] = list(first.shape[1:])
        return (self.online(first) - 1).square().mean() {loss}

    def begin(self, at):
        self.seen["begin"].append([at.number, at.epoch, at.total_steps])

    def gradients_ready(self, at):
        assert self.head.weight.grad is not None
        self.seen["ready"] += 1

    def finish(self, at):
        self.seen["finish"] += 1
        with torch.no_grad():
            for parameter in self.target.parameters():
                parameter.add_(0.5)
        SEEN.write_text(json.dumps(self.seen))


class StandIn(Peer):
    """A library for tests."""

    package = "stand-in"
    methods = ("simclr", "byol")

    def loop(self, method, run):
        return Recorded(run.method.encoder.trunk)

    def views(self, method, run):
        return lambda image: 2 * [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255]
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Install a package with a peer, for this process and those that it starts."""
    monkeypatch.chdir(tmp_path)

    def install(loss: str = "") -> Path:
        folder = tmp_path / "packages"
        info = folder / "stand_in-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text("[coview.peers]\nstand-in = stand_in:StandIn\n")
        seen = tmp_path / "seen.json"
        (folder / "stand_in.py").write_text(STAND_IN.format(seen=str(seen), loss=loss))
        monkeypatch.syspath_prepend(str(folder))
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), before))))
        return seen

    yield install
    sys.modules.pop("stand_in", None)


def order(photographs: Path, folder: Path, by: str, method: str = "simclr", **more: Any) -> Order:
    arguments = {"method": method, "data": str(photographs), "preset": "none", "epochs": 2}
    arguments |= {"backbone": "resnet10-quarter", "batch_size": 16, "max_steps": 3}
    arguments |= {"set": {"data.size": 24, **more.pop("set", {})}, **more}
    return Order(
        arguments=arguments, measure={"knn": KNN}, seed=0, device="cpu", folder=folder, by=by
    )


def test_a_peer_is_a_row_of_its_own_on_equal_terms(
    stand_in: Callable[..., Path], photographs: Path, coview_command: Command
) -> None:
    seen = stand_in()
    words: tuple[object, ...] = ("compare", "simclr", "--with", "stand-in", "--data", photographs)
    words = (*words, "--steps", 3, "--seeds", 1, "--batch-size", 16, *SMALL, "--device", "cpu")
    answer = coview_command(*words)
    names = ("simclr", "simclr by stand-in")
    lines = answer.stdout.splitlines()
    assert {line.strip().split("  ")[0] for line in lines[2:4]} == set(names)
    assert any(line.strip().startswith("stand-in 1.5: its own loop") for line in lines)
    assert "--with stand-in" in answer.stderr.splitlines()[-2]
    page = Path(next(line for line in lines if line.startswith("page: ")).removeprefix("page: "))
    assert page.name.endswith("-simclr-stand-in.html")
    assert "simclr by stand-in 1.5" in page.read_text(encoding="utf-8")
    document = json.loads(page.with_suffix(".json").read_text())
    rows = {row["method"]: row for row in document["methods"]}
    own, theirs = (rows[name] for name in names)
    assert (own["library"], theirs["library"]) == (None, "stand-in 1.5")
    # The same network, and the same images to measure it by.
    assert own["untrained_knn_top1"] == theirs["untrained_knn_top1"]
    for key in ("steps", "batch_size", "backbone"):
        assert own[key] == theirs[key]
    found = json.loads(seen.read_text())
    # 38 images are two batches an epoch, of 16 each; the schedules end with the steps.
    assert found["rows"] == [16, 16, 16] and found["size"] == [3, 24, 24]
    assert found["begin"] == [[0, 0, 4], [1, 0, 4], [2, 1, 4]]
    assert found["ready"] == found["finish"] == 3
    runs = [json.loads(path.read_text()) for path in Path("comparisons/runs").glob("*/run.json")]
    kept = {run["method"]: run for run in runs}
    assert kept[names[1]]["peer"] == {"name": "stand-in", "version": "1.5"}
    assert "peer" not in kept[names[0]] and all(run["finished"] for run in runs)
    again = coview_command(*words, "--json")
    assert "2 of 2 runs are done already" in again.stderr
    assert json.loads(again.stdout) == document


def test_a_budget_is_divided_by_the_peers_own_pace(
    stand_in: Callable[..., Path],
    photographs: Path,
    coview_command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in()
    monkeypatch.setattr("coview.training.pace.ENOUGH", 0.01)
    monkeypatch.setattr("coview.training.pace.step_seconds.__defaults__", (0.01,))
    words: tuple[object, ...] = ("compare", "simclr", "--with", "stand-in", "--data", photographs)
    words = (*words, "--budget", "1s", "--seeds", 1, "--batch-size", 16, *SMALL)
    found = json.loads(coview_command(*words, "--device", "cpu", "--json").stdout)
    paces = json.loads(Path("comparisons", PACES).read_text())
    own, theirs = (
        next(p for k, p in paces.items() if ("stand-in" in k) == it) for it in (False, True)
    )
    assert own != theirs
    steps = {row["method"]: row["steps"] for row in found["methods"]}
    wanted = {"simclr": own, "simclr by stand-in": theirs}
    assert steps == {name: max(1, int(1 / pace)) for name, pace in wanted.items()}


def test_the_network_that_the_recipe_evaluates_is_exported(
    stand_in: Callable[..., Path], photographs: Path, tmp_path: Path
) -> None:
    seen = stand_in()
    told = order(photographs, tmp_path / "run", "stand-in", "byol", set={"evaluates": "target"})
    before = peers._built(told).method.encoder.trunk.state_dict()
    run = peers.train(told)
    loaded = coview.load_backbone(tmp_path / "run").backbone.state_dict()
    weights = [name for name, value in before.items() if value.ndim == 4]
    # The stand-in adds a half to its second network after each step; the first one learns.
    for name in weights:
        assert torch.allclose(loaded[name], before[name] + 1.5)
    online = run.method.encoder.trunk.state_dict()
    assert not any(torch.equal(before[name], online[name]) for name in weights)
    drawn = json.loads(seen.read_text())["drawn"]
    random.random(), np.random.rand()
    again = peers.train(attrs.evolve(told, folder=tmp_path / "again"))
    repeated = again.method.encoder.trunk.state_dict()
    assert all(torch.equal(repeated[name], online[name]) for name in weights), "the same seed"
    assert json.loads(seen.read_text())["drawn"] == drawn


def test_a_loss_that_is_no_number_ends_the_run(
    stand_in: Callable[..., Path], photographs: Path, tmp_path: Path
) -> None:
    stand_in("* float('nan')")
    with pytest.raises(CoviewError, match="not a number any more, after step 2"):
        peers.train(order(photographs, tmp_path / "run", "stand-in"))
    assert not (tmp_path / "run" / RESULT).exists()


def test_what_a_peer_cannot_do_is_a_sentence(
    stand_in: Callable[..., Path],
    photographs: Path,
    coview_command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in()

    def refused(*words: object) -> str:
        rest = ("--data", photographs, "--steps", 1)
        said = coview_command("compare", *words, *rest, status=2).stderr
        assert said.count("\n") == 1, "one sentence, before anything is rehearsed"
        return said

    assert "with stand-in has no loop of vicreg, but of: simclr, byol." in refused(
        "byol", "vicreg", "--with", "stand-in"
    )
    assert "no peer called 'stand-inn'. Did you mean 'stand-in'?" in refused(
        "byol", "--with", "stand-inn"
    )
    assert "needs two methods or more, or one and --with" in refused("byol")
    monkeypatch.setattr(Lightly, "package", "lightly-that-is-not-there")
    assert refused("byol", "--with", "lightly") == (
        "Error: lightly-that-is-not-there is not installed: pip install lightly-that-is-not-there\n"
    )


def rehearsed(photographs: Path, folder: Path, method: str, **changes: Any) -> Any:
    told = order(photographs, folder, "lightly", method, **{"preset": "tiny", **changes})
    return peers._built(told)


@pytest.mark.parametrize("method", Lightly.methods)
def test_lightly_is_given_what_the_recipe_says(
    method: str, photographs: Path, tmp_path: Path
) -> None:
    run = rehearsed(photographs, tmp_path / "run", method)
    own, parts = of_the_recipe(method, run), run.resolved
    encoder, loss = parts.part("encoder").settings, parts.part("loss").settings
    assert own.dim == encoder.dim
    assert own.hidden == (encoder.hidden or 128)
    if method in ("simclr", "moco-v2", "swav"):
        assert own.temperature == loss.temperature
    if method == "dino":
        assert (own.prototypes, own.temperature) == (encoder.dim, loss.student_temperature)
    if method in ("moco-v2", "byol", "dino"):
        assert own.decay(coview.Step()) == parts.part("target").settings.decay
    assert scale(run) == (4.0 if method == "byol" else 1.0)
    asked, views = of_the_views(run), parts.part("views").settings
    assert asked.crop_scale == tuple(views.crop_scale) and asked.flip_p == views.flip_p
    assert asked.blur_p == (0.5, 0.5) and asked.blur_sigma == (0.1, 1.0)


def test_what_lightly_has_not_is_refused(photographs: Path, tmp_path: Path) -> None:
    changing = {"loss.temperature": "cosine(0.1, 0.5)"}
    run = rehearsed(photographs, tmp_path / "run", "simclr", set=changing)
    with pytest.raises(RequestError, match="one number .*: --set loss.temperature=NUMBER"):
        of_the_recipe("simclr", run)
    run = rehearsed(photographs, tmp_path / "run", "swav", preset="none", set={"data.size": 64})
    with pytest.raises(RequestError, match="2 views of an image, not 8"):
        of_the_views(run)
    crops = {"views.crop_scale": [0.1, 0.5]}
    run = rehearsed(photographs, tmp_path / "run", "simclr", set=crops)
    with pytest.raises(RequestError, match=r"not 0.5 of it: --set views.crop_scale=\[0.1,1.0\]"):
        of_the_views(run)
    asked = {"target.decay": "cosine(0.9, 1.0)"}
    run = rehearsed(photographs, tmp_path / "run", "byol", set=asked)
    decay = of_the_recipe("byol", run).decay
    assert isinstance(run.resolved.part("target").settings.decay, Schedule)
    ends = [decay(coview.Step(number=n, total_steps=10)) for n in (0, 10)]
    assert ends == pytest.approx([0.9, 1.0])


@pytest.mark.filterwarnings("ignore")  # lightly's
@pytest.mark.skipif(importlib.util.find_spec("lightly") is None, reason="lightly is not installed")
@pytest.mark.parametrize("method", Lightly.methods)
@pytest.mark.parametrize("channels", [1, 3])
def test_lightlys_own_loop_trains(
    method: str, channels: int, photographs: Path, tmp_path: Path
) -> None:
    told = order(photographs, tmp_path / "run", "lightly", method, preset="tiny")
    told.arguments["set"]["data.channels"] = channels
    before = peers._built(told).method.encoder.trunk.state_dict()
    run = peers.train(told)
    assert run.step == 3 and run.value("knn_top1") is not None
    trained = run.method.encoder.trunk.state_dict()
    moved = [name for name, value in trained.items() if not torch.equal(value, before[name])]
    assert len(moved) == len(trained)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["peer"]["version"] == Lightly().version()
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


@pytest.mark.filterwarnings("ignore")  # lightly's
@pytest.mark.skipif(importlib.util.find_spec("lightly") is None, reason="lightly is not installed")
def test_lightlys_views_are_as_the_network_is_evaluated(photographs: Path, tmp_path: Path) -> None:
    run = rehearsed(photographs, tmp_path / "run", "byol")
    run.card = SimpleNamespace(size=24, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    white = peers.picture(torch.full((3, 24, 24), 255, dtype=torch.uint8))
    views = Lightly().views("byol", run)
    both = [view for _ in range(10) for view in views(white)]
    assert {tuple(view.shape) for view in both} == {(3, 24, 24)}
    top = torch.stack(both).amax(dim=(0, 2, 3))
    assert top == pytest.approx([1.8, 1.6, 1.4], abs=0.02)
