"""What may change when a run is resumed: by name only, each difference spelled out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import coview
from coview.errors import RequestError
from coview.testing import same
from coview.training.differences import differences, refuse_others
from coview.training.request import Request

BEFORE = {
    "recipe": 'epochs = 3\n[loss]\nuse = "info-nce"\ntemperature = 0.1\n[data]\nsize = 32\n',
    "data": "abc",
    "seed": 0,
    "world_size": 2,
}
AFTER = {
    **BEFORE,
    "recipe": 'epochs = 5\n[loss]\nuse = "info-nce"\ntemperature = 0.2\n[data]\nsize = 32\n',
    "data": "def",
    "world_size": 1,
}
ALL = {
    "data": ("abc", "def"),
    "epochs": (3, 5),
    "loss.temperature": (0.1, 0.2),
    "world_size": (2, 1),
}


def test_differences_are_key_by_key() -> None:
    assert differences(BEFORE, dict(BEFORE)) == {}
    assert differences(BEFORE, AFTER) == ALL


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        ((), [*ALL]),
        (("world-size",), ["data", "epochs", "loss.temperature"]),
        (("world_size", "loss.temperature"), ["data", "epochs"]),
        (("loss", "data"), ["epochs", "world_size"]),
        (("recipe",), ["data", "world_size"]),
        (("recipe", "data", "world-size"), []),
    ],
)
def test_only_what_is_named_may_change(allowed: tuple[str, ...], refused: list[str]) -> None:
    found = differences(BEFORE, AFTER)
    asked = Request(allow_change=allowed)
    if not refused:
        refuse_others(found, AFTER, asked)
        return
    with pytest.raises(RequestError) as caught:
        refuse_others(found, AFTER, asked)
    assert list(caught.value.problems) == [
        f"{key} differs from the saved run ({ALL[key][0]!r}, now {ALL[key][1]!r})."
        for key in refused
    ]
    (note,) = caught.value.__notes__
    assert note.splitlines()[1:] == [f"  allow_change={[*allowed, *refused]!r}"]
    # What is said to be accepted is accepted.
    refuse_others(found, AFTER, Request(allow_change=(*allowed, *refused)))


def test_the_command_that_would_be_accepted_is_the_last_line() -> None:
    words = ("/usr/bin/coview", "train", "--resume", "my run", "--allow-change", "word-size")
    words += ("--allow-change=dta", "--set", "loss.temperature=0.2")
    asked = Request(allow_change=("word-size", "dta"), command=words, layer="command line")
    with pytest.raises(RequestError) as caught:
        refuse_others(differences(BEFORE, AFTER), AFTER, asked)
    assert len(caught.value.problems) == 2 + len(ALL)
    assert caught.value.__notes__ == [
        "To change them:\n"
        "  coview train --resume 'my run' --set loss.temperature=0.2 --allow-change data "
        "--allow-change epochs --allow-change loss.temperature --allow-change world_size"
    ]


def test_a_name_that_allows_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"Did you mean 'world_size'"):
        refuse_others({}, BEFORE, Request(allow_change=("word-size",)))
    with pytest.raises(RequestError, match=r"Did you mean 'loss.temperature'"):
        refuse_others({}, BEFORE, Request(allow_change=("loss.temprature",)))


OPTIONS: dict[str, Any] = {
    "preset": "small",
    "backbone": "resnet10-quarter",
    "image_size": 16,
    "batch_size": 16,
    "set": {"backbone.stem": "7x7"},
    "device": "cpu",
    "evaluate": False,
    "progress": False,
}
GO_ON: dict[str, Any] = {
    "device": "cpu",
    "evaluate": False,
    "progress": False,
    "max_steps": "none",
}


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 1, 16, 16), generator=generator, dtype=torch.uint8)


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A run that stands after the first of two epochs of three steps."""
    data = images(60)
    run = coview.train("simclr", data=data, out=tmp_path / "r", epochs=2, max_steps=3, **OPTIONS)
    return run.path


def state(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    return loaded


def test_changed_settings_hold_from_there_on(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"epochs": 3, "set": {"optimizer.lr": 0.5, "optimizer.momentum": 0.5}}
    with pytest.raises(RequestError) as caught:
        coview.train(resume=cut, data=images(60), **given, **GO_ON)
    assert len(caught.value.problems) == 3 and state(cut)["step"] == 3
    before = (cut / "recipe.toml").read_text()
    allow = ["optimizer", "epochs"]
    run = coview.train(resume=cut, data=images(60), allow_change=allow, **given, **GO_ON)
    assert run.step == 9
    assert run.optimizer.param_groups[0]["momentum"] == 0.5
    assert run.peak == pytest.approx(run.resolved.part("optimizer").settings.peak(16))
    assert any("epochs changes from 2 to 3 after step 3" in n for n in run.resolved.notices)
    assert (cut / "recipe.toml").read_text() != before
    facts = json.loads((cut / "run.json").read_text())
    (change,) = facts["changes"]
    assert change["step"] == 3 and change["changed"]["epochs"] == [2, 3]
    # What was changed is the run now: it is finished, and stays as it is.
    files = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    capsys.readouterr()
    again = coview.train(resume=cut, data=images(60), **{**GO_ON, "progress": True})
    assert again.step == 9 and again.metrics == run.metrics
    assert capsys.readouterr().err == f"{again.finished}\n"
    assert again.finished == (
        "This run is finished: 9 steps, 3 epochs. To train it for longer:\n"
        f"  coview.train(resume={str(cut)!r}, data=data, epochs=6, allow_change='epochs')"
    )
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == files


def test_a_change_that_changes_nothing_is_the_same_run(cut: Path, tmp_path: Path) -> None:
    whole = coview.train("simclr", data=images(60), out=tmp_path / "w", epochs=2, **OPTIONS)
    coview.train(resume=cut, data=images(60), epochs=2, batch_size=16, **GO_ON)
    assert same(state(cut)["method"], state(whole.path)["method"])
    (change,) = json.loads((cut / "run.json").read_text())["changes"]
    assert set(change["changed"]) == {"max_steps"}, "which is asked for, and changes no number"


def test_changed_data_are_counted_by_the_new_epochs(cut: Path) -> None:
    with pytest.raises(
        RequestError,
        match=r"data differs from .*, now [^)]*.\)[.]\nTo change it:\n  allow_change=\['data'\]",
    ):
        coview.train(resume=cut, data=images(80), **GO_ON)
    run = coview.train(resume=cut, data=images(80), allow_change="data", **GO_ON)
    assert run.step == 10 and run.plan.steps_per_epoch == 5  # without labels all are trained on


@pytest.mark.parametrize("name", ["threads", "compile", "world_size"])
def test_what_an_older_version_did_not_save_is_not_compared(cut: Path, name: str) -> None:
    older = state(cut)
    del older["identity"][name]
    torch.save(older, cut / "checkpoints" / "last.pt")
    run = coview.train(resume=cut, data=images(60), **GO_ON)
    assert run.step == 6 and name not in run.changed


def test_another_optimiser_starts_anew(cut: Path) -> None:
    use = {"use": {"optimizer": "adamw"}, "allow_change": ["optimizer"]}
    run = coview.train(resume=cut, data=images(60), **use, **GO_ON)
    assert type(run.optimizer).__name__ == "AdamW" and run.step == 6
    assert any("optimiser starts anew" in notice for notice in run.resolved.notices)
    (step,) = {int(entry["step"]) for entry in run.optimizer.state.values()}
    assert step == 3


def test_other_groups_of_parameters_start_anew(cut: Path) -> None:
    settings = {"optimizer.exclude_norm_and_bias": False}
    run = coview.train(
        resume=cut, data=images(60), set=settings, allow_change=["optimizer"], **GO_ON
    )
    assert any("optimiser starts anew" in notice for notice in run.resolved.notices)
    assert run.step == 6


def test_weights_of_another_shape_do_not_fit(cut: Path) -> None:
    with pytest.raises(RequestError, match=r"does not fit the changed recipe \(encoder.dim\)"):
        coview.train(
            resume=cut,
            data=images(60),
            set={"encoder.dim": 32},
            allow_change=["recipe"],
            **GO_ON,
        )
    assert state(cut)["step"] == 3


def test_what_no_resumption_can_take_up(cut: Path, tmp_path: Path) -> None:
    for name, value in {"out": tmp_path / "x", "init": cut, "preset": "none"}.items():
        with pytest.raises(RequestError, match=f"leave out {name} when you give resume"):
            coview.train(resume=cut, data=images(60), **{name: value}, **GO_ON)
    with pytest.raises(RequestError, match="only for a resumed run"):
        coview.train("simclr", allow_change=["epochs"], out=tmp_path / "y", **OPTIONS)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"method": "simclr"}'])
def test_facts_that_are_damaged_are_said_so(cut: Path, text: str) -> None:
    (cut / "run.json").write_text(text)
    with pytest.raises(coview.errors.CoviewError, match=r"run.json is damaged"):
        coview.train(resume=cut, data=images(60), **GO_ON)


@pytest.mark.parametrize("timeout", [0.0, -3.0, float("nan"), float("inf"), 1e300])
def test_a_timeout_that_is_none(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(RequestError, match="timeout must be between 1 second and 7 days"):
        coview.train("simclr", timeout=timeout, out=tmp_path / "y", **OPTIONS)
