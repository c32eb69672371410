"""The collapse observer: when it measures, when it speaks, and that it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import coview
from coview import Batch, Encoded, Plan, Step, Targets
from coview.errors import CoviewError, RequestError
from coview.method.module import Method, build_method
from coview.recipes.configure import Changes, configure
from coview.testing import Synchronisations
from coview.training.checkpoints import read
from coview.training.observers.collapse import CollapseObserver, measured, watched
from coview.training.observers.collapse_signs import cause, guards_of

SIZE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "backbone": "resnet10-quarter",
    "progress": False,
    "evaluate": False,
    "set": {"encoder.hidden": 16, "encoder.dim": 8, "encoder.predictor_hidden": 16},
}


def images(count: int = 160) -> torch.Tensor:
    make = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=make, dtype=torch.uint8)


def built(name: str, use: dict[str, str] | None = None, **chosen: Any) -> Method:
    small = {"encoder.hidden": 16, "encoder.dim": 8}
    sets = {**small, **{key.replace("__", "."): value for key, value in chosen.items()}}
    changes = Changes(preset="small", backbone="resnet10-quarter", use=use or {}, set=sets)
    plan = Plan(batch_size=16, steps_per_epoch=4, total_steps=40, image_size=16)
    return build_method(configure(name, None, changes, "test"), plan).train()


def made(**chosen: Any) -> CollapseObserver:
    return CollapseObserver(CollapseObserver.Settings(**chosen))


class FakeRun:
    """A run as the observer sees it, whose readings are given."""

    def __init__(self, observer: CollapseObserver, total: int = 99) -> None:
        self.observer, self.step = observer, 0
        self.plan, self.last_step = SimpleNamespace(total_steps=total), total
        self.metrics: list[dict[str, Any]] = []
        self.method = built("byol", encoder__predictor=False)
        observer.run_started(self)

    def log(self, **values: Any) -> None:
        self.metrics.append({"step": self.step, **values})

    def reads(self, step: int, std: float, rank: float = 9.0, **logged: float) -> None:
        self.step = step
        self.log(loss=1.0, **logged)
        self.observer._measured = {
            "std": torch.tensor(std),
            "effective_rank": torch.tensor(rank),
        }
        self.observer.step_finished(self)

    @property
    def said(self) -> list[tuple[int, str]]:
        return [(row["step"], row["collapse"]) for row in self.metrics if "collapse" in row]


def test_a_sign_must_last_and_is_told_once(capsys: Any) -> None:
    run = FakeRun(made(patience=50))
    for step in range(25, 325, 25):
        run.reads(step, 0.05 if step != 75 else 0.2)
    assert run.said == [(150, "std")]  # there since 100; what was before 75 does not count
    err = capsys.readouterr().err
    assert err.count("warning:") == 1
    assert "step 150" in err and "since step 100" in err
    assert "a predictor (--set encoder.predictor=true)" in err
    (row,) = [row for row in run.metrics if "collapse" in row]
    assert row["warning"] in err


def test_patience_grows_with_the_run() -> None:
    run = FakeRun(made(patience=50), total=20_000)  # one per cent: 200 steps
    for step in range(25, 325, 25):
        run.reads(step, 0.05)
    assert run.said == [(225, "std")]


def test_rank_counts_where_vectors_do_not_shrink() -> None:
    run = FakeRun(made(patience=0))
    run.reads(25, std=0.9, rank=1.4)
    assert run.said == [(25, "rank")]


def test_where_there_are_assignments_they_alone_count(capsys: Any) -> None:
    run = FakeRun(made(patience=0))
    run.reads(25, 0.01, 1.0, assignment_information=0.2, assignment_mean_entropy=0.9)
    assert run.said == []
    run.reads(50, 0.9, 9.0, assignment_information=0.0005, assignment_mean_entropy=0.01)
    assert run.said == [(50, "information")]
    assert "one output takes all images" in capsys.readouterr().err
    other = FakeRun(made(patience=0))
    other.reads(25, 0.9, 9.0, assignment_information=0.0005, assignment_mean_entropy=1.0)
    assert "spread over the outputs in the same way" in capsys.readouterr().err


def test_nothing_is_judged_before_this_sitting_logged() -> None:
    """A process that goes on has no earlier metrics: all must judge by the same."""
    run = FakeRun(made(patience=0))
    run.metrics = [{"step": 0, "loss": 1.0}]
    run.observer._measured = {"std": torch.tensor(0.01), "effective_rank": torch.tensor(9.0)}
    run.step = 5
    run.observer.step_finished(run)
    assert run.said == []
    run.reads(10, 0.01)
    assert run.said == [(10, "std")]


def test_the_last_step_is_read_and_not_logged() -> None:
    run = FakeRun(made(every=25, patience=50), total=10)
    run.reads(10, 0.05)
    assert [row for row in run.metrics if "collapse/std" in row] == [] and run.said == []
    assert run.observer.ended(run) == (
        "The run ends collapsed: embeddings of different images are nearly the same. In its "
        "last step collapse/std (1 is the spread of random directions) is 0.05. "
        "With 10 steps that may only be how training begins."
    )
    healthy = FakeRun(made(), total=10)
    healthy.reads(10, 0.3)
    assert healthy.observer.ended(healthy) is None
    long = FakeRun(made(), total=100)
    long.reads(100, 0.9, rank=1.2)
    assert [row["collapse/effective_rank"] for row in long.metrics if "collapse/std" in row] == [
        1.2
    ]
    assert long.observer.ended(long) == (
        "The run ends collapsed: embeddings lie along a single direction. In its last step "
        "collapse/effective_rank is 1.2."
    )


def test_what_was_said_goes_through_a_checkpoint() -> None:
    run = FakeRun(made(patience=50))
    run.reads(25, 0.05)
    run.reads(50, 0.05)
    state = json.loads(json.dumps(run.observer.state_dict()))
    assert state == {"since": {"std": 25}, "said": []}
    again = FakeRun(made(patience=50))
    again.observer.load_state_dict(state)
    again.reads(75, 0.05)
    again.reads(100, 0.05)
    assert again.said == [(75, "std")]
    assert again.observer.state_dict() == {"since": {"std": 25}, "said": ["std"]}


@pytest.mark.parametrize(
    "asked, action, fresh, expected",
    [
        ([], None, True, ["collapse"]),
        ([], "warn", True, ["collapse"]),
        ([], "stop", True, ["collapse:action=stop"]),
        ([], "ignore", True, []),
        (["csv"], None, True, ["collapse", "csv"]),
        (["collapse:every=5"], None, True, ["collapse:every=5"]),
        (["collapse:every=5"], "stop", True, ["collapse:every=5,action=stop"]),
        (["collapse:action=stop"], "warn", True, ["collapse:action=warn"]),
        (
            ["collapse", "x", "coview:collapse:every=5"],
            None,
            True,
            ["coview:collapse:every=5", "x"],
        ),
        (["collapse:every=5", "x"], "ignore", True, ["x"]),
        # A run that goes on has what it had, unless it is told otherwise.
        ([], None, False, []),
        (["collapse:action=stop"], None, False, ["collapse:action=stop"]),
        ([], "stop", False, ["collapse:action=stop"]),
        (["collapse"], "ignore", False, []),
        (["wrong="], None, False, ["wrong="]),
    ],
)
def test_on_unless_it_is_ignored(
    asked: list[str], action: str | None, fresh: bool, expected: list[str]
) -> None:
    assert watched(asked, action, fresh) == expected


def test_an_action_that_is_none_is_refused() -> None:
    with pytest.raises(RequestError, match="Did you mean 'ignore'"):
        coview.train("simclr", images(), on_collapse="ignor", **SIZE)


def test_rows_that_are_measured_are_spread_over_the_batch() -> None:
    """Of 10 rows and at most 4: rows 0, 3, 6 and 9, of projections and keys alike."""
    z = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    other = z.flip(0)
    encoded = Encoded({0: z, 1: other}, {0: z, 1: other}, {}, ((0, 1), (1, 0)), {})
    found = measured(encoded, Targets({0: z, 1: other}, {}), most=4)
    few = [0, 3, 6, 9]
    whole = Encoded({0: z[few], 1: other[few]}, {0: z[few], 1: other[few]}, {}, ((0, 1),), {})
    expected = measured(whole, Targets({0: z[few], 1: other[few]}, {}), most=99)
    assert found == expected and set(found) >= {"std", "effective_rank", "alignment"}


def test_the_worse_of_two_networks_counts() -> None:
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    still = torch.ones(8, 4)
    encoded = Encoded({0: z, 1: still}, {0: z, 1: still}, {}, ((0, 1),), {})
    found = measured(encoded, Targets({1: still}, {}), most=8)
    assert found["std"].item() == pytest.approx(0, abs=1e-6)
    assert found["effective_rank"].item() == pytest.approx(1, abs=1e-4)
    assert found["uniformity"].item() == pytest.approx(0, abs=1e-5)


def test_keys_of_another_width_have_no_alignment() -> None:
    z = torch.randn(8, 4)
    encoded = Encoded({0: z}, {0: z}, {}, ((0, 0),), {})
    assert "alignment" not in measured(encoded, Targets({0: torch.randn(8, 6)}, {}), most=8)


def test_steps_between_readings_wait_for_nothing_and_compute_nothing() -> None:
    method, observer = built("byol"), made(every=3)
    method.observe(observer, "collapse")
    make = torch.Generator().manual_seed(0)
    batch = Batch(images(16), torch.arange(16))
    z = torch.randn(16, 8, generator=make)
    encoded = Encoded({0: z, 1: z}, {0: z, 1: z}, {}, ((0, 1),), {})
    targets = Targets({0: z, 1: z}, {})
    for number in range(6):
        step = Step(number=number)
        method(batch, step).backward()
        with Synchronisations() as seen:
            method.update_target(step)
        assert seen.found == []  # values are read when the step is finished
        assert bool(observer._measured) is (number in (2, 5))
        if observer._measured:
            run = SimpleNamespace(log=lambda **_: None, metrics=[], step=number + 1)
            observer.step_finished(run)
        observer.update_target(encoded, targets, Step(number=3))
        assert not observer._measured


def test_a_watched_run_trains_the_same(tmp_path: Path) -> None:
    ends, randoms = [], []
    for name, choice in (("with", {"observe": ["collapse:every=1"]}), ("not", {})):
        action = None if choice else "ignore"
        run = coview.train(
            "byol", images(), out=tmp_path / name, max_steps=4, on_collapse=action, **choice, **SIZE
        )
        ends.append(run.method.state_dict())
        randoms.append(read(run.path / "checkpoints" / "last.pt")["random"])
        assert any("collapse/std" in row for row in run.metrics) is bool(choice)
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[1])
    assert torch.equal(*randoms)


def test_a_resumed_run_reads_what_the_whole_one_does(tmp_path: Path) -> None:
    watch = {"observe": ["collapse:every=2"]}
    whole = coview.train("byol", images(), out=tmp_path / "whole", log_every=1, **watch, **SIZE)
    coview.train("byol", images(), out=tmp_path / "half", log_every=1, max_steps=3, **watch, **SIZE)
    half = coview.train(
        resume=tmp_path / "half",
        data=images(),
        max_steps="none",
        log_every=1,
        evaluate=False,
        progress=False,
    )
    read_rows = [[row for row in run.metrics if "collapse/std" in row] for run in (whole, half)]
    assert len(read_rows[0]) == whole.step // 2 == 5
    assert read_rows[0] == read_rows[1]
    states = [read(run.path / "checkpoints" / "last.pt")["observers"] for run in (whole, half)]
    assert states[0] == states[1] and "collapse" in states[0]


def test_stop_leaves_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    choice = {"observe": ["collapse:every=2,std=2,patience=2"], "on_collapse": "stop"}
    with pytest.raises(CoviewError, match=r"Collapse: .*--on-collapse stop.*last\.pt"):
        coview.train("byol", images(), out=out, log_every=1, **choice, **SIZE)
    state = read(out / "checkpoints" / "last.pt")
    assert state["step"] == 4
    facts = json.loads((out / "run.json").read_text())
    assert facts["observers"] == ["collapse:every=2,std=2,patience=2,action=stop"]
    assert facts["finished"] is None
    # It was said; whoever goes on has heard it.
    run = coview.train(resume=out, data=images(), evaluate=False, progress=False)
    assert run.step == 10


@pytest.mark.parametrize(
    "name, use, chosen, missing",
    [
        ("simsiam", {"target": "shared"}, {}, "a stop-gradient"),
        ("byol", {}, {"encoder__predictor": False}, "a predictor"),
        ("byol", {}, {"encoder__norm": "layer"}, "batch normalisation in the heads"),
        ("dino", {}, {"loss__centring": False}, "centring"),
        ("dino", {}, {"loss__teacher_temperature": 0.2}, "sharpening"),
    ],
)
def test_the_cause_is_what_is_missing(
    name: str, use: dict[str, str], chosen: dict[str, Any], missing: str
) -> None:
    off = [guard.what for guard in guards_of(built(name, use, **chosen)) if not guard.on]
    assert len(off) == 1 and off[0].startswith(missing)
    assert f"Missing: {missing}" in cause(built(name, use, **chosen))


@pytest.mark.parametrize("name", ["vicreg", "barlow-twins"])
def test_a_loss_with_a_safeguard_of_its_own_needs_no_stop_gradient(name: str) -> None:
    term = {"vicreg": "loss__variance", "barlow-twins": "loss__redundancy"}[name]
    found = {guard.what: guard.on for guard in guards_of(built(name))}
    assert len(found) == 1 and all(found.values())
    off = [guard.what for guard in guards_of(built(name, **{term: 0.0})) if not guard.on]
    assert len(off) == 2 and off[0].startswith("a stop-gradient") and off[1] in found


@pytest.mark.parametrize(
    "name", ["simsiam", "byol", "dino", "swav", "simclr", "moco-v3", "nnclr", "supcon"]
)
def test_recipes_as_they_are_miss_nothing(name: str) -> None:
    method = built(name)
    assert [guard.what for guard in guards_of(method) if not guard.on] == []
    assert "None is missing" in cause(method)
