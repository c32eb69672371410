"""Observers: how they are asked for, and that a resumed run has them as they were."""

import json
from contextlib import nullcontext

import attrs
import pytest
import torch

import coview
from coview.errors import RequestError
from coview.training.observers.base import parse, restore, states, watchers


@pytest.mark.parametrize(
    "text, expected",
    [
        ("csv", ("csv", {})),
        ("package:csv", ("package:csv", {})),
        ("probe:lr=0.1,every=3", ("probe", {"lr": 0.1, "every": 3})),
        ("a-b:probe:widths=[1, 2],on=true", ("a-b:probe", {"widths": [1, 2], "on": True})),
        (
            "wandb:project=my runs,mode=offline",
            ("wandb", {"project": "my runs", "mode": "offline"}),
        ),
        ("wandb:url=http://x:80", ("wandb", {"url": "http://x:80"})),
    ],
)
def test_settings_stand_behind_the_name(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", ":lr=1", "probe:lr=1,more", "probe=3"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(RequestError, match="--observe takes NAME"):
        parse(text)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(RequestError) as refused:
        watchers(["progres", "progress:width=3"])
    first, second = refused.value.problems
    assert "Did you mean 'progress'?" in first
    assert "has no settings" in second


def test_a_class_instead_of_an_object_is_refused():
    with pytest.raises(RequestError, match=r"call Counter\(\.\.\.\) first"):
        watchers([Counter])


class Counter:
    """Counts the steps it has seen, over all of a run's sittings."""

    def __init__(self):
        self.steps = torch.zeros((), dtype=torch.int64)
        self.started = 0

    @coview.hookimpl
    def run_started(self):
        self.started += 1

    @coview.hookimpl
    def step_finished(self):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"].clone()


def test_an_object_observes_and_its_state_goes_through_the_checkpoint(tmp_path):
    size = {"epochs": 1, "batch_size": 64, "backbone": "resnet10-quarter", "progress": False}
    images = torch.randint(0, 256, (240, 3, 8, 8), dtype=torch.uint8)
    counter = Counter()
    coview.train(
        "simclr", images, out=tmp_path / "r", max_steps=2, evaluate=False, observe=[counter], **size
    )
    assert (counter.steps, counter.started) == (2, 1)

    again = Counter()
    coview.train(
        resume=tmp_path / "r",
        data=images,
        max_steps="none",
        evaluate=False,
        observe=[again],
        progress=False,
    )
    assert (again.steps, again.started) == (3, 1)
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    # An object cannot be named, and progress is the terminal's.
    assert facts["observers"] == ["collapse"]


def test_only_observers_with_state_are_kept():
    one, other = watchers([Counter(), "progress"])
    kept = states({"Counter": one, "progress": other})
    assert list(kept) == ["Counter"]
    restore({"Counter": one, "new": other}, {"Counter": {"steps": torch.tensor(7)}})
    assert one.observer.steps == 7


def test_settings_are_built_and_checked(monkeypatch):
    class Tuned:
        @attrs.frozen
        class Settings:
            every: int = coview.setting(10, "steps between readings")

        def __init__(self, settings):
            self.settings = settings

    class Entry:
        name, package = "tuned", "somewhere"

        @staticmethod
        def load():
            return Tuned

    monkeypatch.setattr("coview.training.observers.base.find", lambda kind, name: Entry)
    (made,) = watchers(["tuned:every=3"])
    assert made.observer.settings.every == 3 and made.asked == "tuned:every=3"
    with pytest.raises(RequestError, match=r"tuned\.every must be a whole number"):
        watchers(["tuned:every=often"])
    (default,) = watchers(["tuned:every=3", "tuned"])  # the last one counts
    assert default.observer.settings.every == 10


@pytest.mark.parametrize("ends", [None, RuntimeError("of its own"), KeyboardInterrupt()])
def test_an_observer_is_closed_however_training_ends(tmp_path, ends):
    class Holds:
        open = True

        @coview.hookimpl
        def step_finished(self, run):
            if ends is not None:
                raise ends

        def close(self):
            self.open = False

    holds = Holds()
    raised = nullcontext() if ends is None else pytest.raises(type(ends))
    with raised:
        coview.train(
            "simclr",
            out=tmp_path / "r",
            backbone="resnet10-quarter",
            image_size=16,
            batch_size=16,
            max_steps=1,
            evaluate=False,
            device="cpu",
            progress=False,
            observe=[holds],
        )
    assert not holds.open
