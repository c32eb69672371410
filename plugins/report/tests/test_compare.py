"""Methods compared: equal compute, the statistics, the page, and real runs that go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import vl_convert
from click.testing import Result
from scipy import stats

import coview
from coview.errors import RequestError
from coview.recipes.recipe import to_toml
from coview.studies import Variant
from coview.studies.jobs import RESULT, Asked, Job
from coview_report.compared import mean_over_seeds
from coview_report.comparing import PACES, Compute, Entrant, Wanted, entrants, named, study
from coview_report.page import comparison_page
from coview_report.reading import read
from coview_report.standing import Standing, rows, standing

EVIL = "<img src=x onerror=alert(1)>"
Command = Callable[..., Result]
SMALL = ("--backbone", "resnet10-quarter", "--preset", "none", "--image-size", 24)


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of one's own for what lies where a comparison is typed."""
    monkeypatch.chdir(tmp_path)


def entrant(name: str, steps: int = 10) -> Entrant:
    return Entrant(
        name=name, network="n", shapes="", channels=3, size=24, batch=16, images=38,
        steps_per_epoch=3, warmup=0, steps=steps,
    )  # fmt: skip


def stood(folder: Path, shares: dict[str, list[float]], seeds: int = 3) -> Standing:
    """Return how methods stand whose runs left these accuracies."""
    jobs = []
    for name, values in shares.items():
        for seed, knn in enumerate(values):
            place = folder / f"{abs(hash(name))}-{seed}"
            place.mkdir(parents=True)
            found = {"values": {"knn": knn, "untrained": 0.3, "seconds": 60.0 + seed}}
            (place / RESULT).write_text(json.dumps(found))
            jobs.append(Job(variant=name, seed=seed, digest="", folder=place))
        for seed in range(len(values), seeds):
            jobs.append(Job(variant=name, seed=seed, digest="", folder=folder / "none"))
    return standing([entrant(name) for name in shares], jobs, range(seeds))


def test_intervals_are_students_and_differences_are_paired(tmp_path: Path) -> None:
    first, other = [0.81, 0.84, 0.90], [0.80, 0.82, 0.885]
    found = stood(tmp_path, {"other": other, "first": first})
    assert [place.name for place in found.places] == ["first", "other"]
    mean, error = np.mean(first), stats.sem(first)
    low, high = stats.t.interval(0.95, 2, loc=mean, scale=error)
    assert (found.best.knn.low, found.best.knn.high) == pytest.approx((low, high))
    wanted = stats.ttest_rel(other, first).confidence_interval(0.95)
    behind = found.places[1].behind
    assert behind is not None and (behind.low, behind.high) == pytest.approx(tuple(wanted))
    # Their own intervals overlap widely, and yet every seed agrees.
    assert found.places[1].knn.high > found.best.knn.low
    assert found.places[1].told_apart is bool(wanted.high < 0) is True


def test_what_the_seeds_do_not_tell_is_said(tmp_path: Path) -> None:
    found = stood(tmp_path, {"a": [0.8, 0.7, 0.9], "b": [0.7, 0.8, 0.85], "c": [0.1, 0.0, 0.2]})
    assert found.verdict == "a is ahead, but 3 seeds do not tell it from b."
    apart = stood(tmp_path / "x", {"a": [0.81, 0.82], "b": [0.11, 0.12]}, seeds=2)
    assert apart.verdict == "a is better than the others, by more than the seeds scatter."
    one = stood(tmp_path / "y", {"a": [0.8], "b": [0.2]}, seeds=1)
    assert "one seed, which says little" in one.verdict
    assert [row[1] for row in rows(one)][1:] == ["80.0", "20.0"]


def test_a_seed_that_one_method_lacks_counts_for_none(tmp_path: Path) -> None:
    found = stood(tmp_path, {"a": [0.8, 0.9, 0.1], "b": [0.7, 0.6]})
    assert found.seeds == (0, 1)
    assert found.best.shares == (0.8, 0.9)


def test_the_table_fits_eighty_columns(tmp_path: Path) -> None:
    shares = {"x" * 60: [0.1, 0.9, 0.5], "masked-autoencoder": [0.9, 0.2, 0.9]}
    table = list(rows(stood(tmp_path, shares)))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    assert 2 + sum(widths) + 2 * (len(widths) - 1) <= 80


def wanted(photographs: Path, out: Path, compute: Compute, **more: Any) -> Wanted:
    common = {"preset": "none", "backbone": "resnet10-quarter", "set": {"data.size": 24}}
    common |= more.pop("common", {})
    return Wanted(
        methods={name: name for name in more.pop("methods", ("simclr", "byol"))},
        common=Variant(data=str(photographs), **common),
        compute=compute,
        asked=Asked(name="comparison", seeds=(0,), device="cpu", out=out),
        **more,
    )


def test_images_are_divided_by_each_methods_batch(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("coview_byol")
    asked = wanted(photographs, tmp_path, Compute(images=640), common={"batch_size": 16})
    found = entrants(asked, lambda line: None)
    assert [each.steps for each in found] == [40, 40]
    assert all(each.images == 38 for each in found)  # a fifth is held out
    made = study(asked, found).whole("byol")
    # The schedule ends where the steps do.
    assert made.max_steps == 40
    assert made.epochs == -(-40 // found[0].steps_per_epoch)


def test_time_is_divided_by_the_seconds_of_a_step(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("coview_byol")
    monkeypatch.setattr("coview.training.pace.step_seconds.__defaults__", (0.2,))
    asked = wanted(photographs, tmp_path, Compute(seconds=100.0), common={"batch_size": 16})
    told: list[str] = []
    first = entrants(asked, told.append)
    assert sum("measuring" in line for line in told) == 2
    file = tmp_path / PACES
    paces = json.loads(file.read_text())
    assert [each.steps for each in first] == [int(100 / pace) for pace in paces.values()]
    assert all(0 < pace < 60 for pace in paces.values())
    assert sum("rehearsing" in line for line in told) == 2
    # What was measured is kept: a comparison that goes on has the same steps.
    file.write_text(json.dumps(dict.fromkeys(paces, 0.5)))
    told.clear()
    again = entrants(asked, told.append)
    assert [each.steps for each in again] == [200, 200]
    assert [attrs.evolve(each, steps=0) for each in again] == [
        attrs.evolve(each, steps=0) for each in first
    ]
    assert told == []


def test_what_has_changed_is_rehearsed_again(photographs: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(photographs, tmp_path / "own"))
    asked = wanted(own, tmp_path, Compute(steps=2), common={"batch_size": 16}, methods=["simclr"])
    other = attrs.evolve(asked, common=attrs.evolve(asked.common, batch_size=8))
    picture = next(own.rglob("*.png"))

    def rehearsed(now: Wanted) -> tuple[int, int]:
        told: list[str] = []
        (one,) = entrants(now, told.append)
        return sum("rehearsing" in line for line in told), one.images

    assert rehearsed(asked) == (1, 38)
    assert rehearsed(asked) == (0, 38)
    assert rehearsed(other) == (1, 38)
    for number in range(10):
        shutil.copy(picture, picture.with_name(f"copy{number}.png"))
    assert rehearsed(asked) == (1, 46)
    assert rehearsed(asked) == (0, 46)


def test_other_networks_are_refused_unless_asked_for(photographs: Path, tmp_path: Path) -> None:
    files = []
    for name in ("resnet10-quarter", "resnet18"):
        files.append(str(tmp_path / f"with-{name}.toml"))
        recipe = attrs.evolve(coview.recipe("simclr"), backbone=name)
        Path(files[-1]).write_text(to_toml(recipe))
    common = {"backbone": None, "batch_size": 16}
    asked = wanted(photographs, tmp_path, Compute(steps=2), common=common)
    asked = attrs.evolve(asked, methods=named(files))
    expected = "with-resnet10-quarter resnet10-quarter, with-resnet18 resnet18. Give one to all"
    with pytest.raises(RequestError, match=expected):
        entrants(asked, lambda line: None)
    allowed = entrants(attrs.evolve(asked, own_networks=True), lambda line: None)
    assert [each.network for each in allowed] == ["resnet10-quarter", "resnet18"]


def test_wrong_requests_are_sentences(photographs: Path, coview_command: Command) -> None:
    def refused(*words: object) -> str:
        return coview_command("compare", *words, status=2).stderr

    data = ("--data", photographs)
    assert "Say once what each run may use" in refused("simclr", "byol", *data)
    both = ("--steps", 1, "--budget", "5m")
    assert "Say once what each run may use" in refused("simclr", "byol", *data, *both)
    assert "needs two methods" in refused("simclr", *data, "--steps", 1)
    assert "simclr is there twice" in refused("simclr", "simclr", *data, "--steps", 1)
    assert "not 'long'" in refused("simclr", "byol", *data, "--budget", "long")
    assert "simclr: There is no data" not in refused("simclr", "simclrr", *data, "--steps", 1)
    assert "Did you mean 'simclr'?" in refused("byol", "simclrr", *data, "--steps", 1)


def test_images_without_labels_cannot_be_compared_by(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("coview_byol")
    alone = next(path for path in photographs.iterdir() if path.name == "red")
    asked = wanted(alone, tmp_path, Compute(steps=2))
    with pytest.raises(RequestError, match="byol: These images have no labels"):
        entrants(asked, lambda line: None)


def test_recipe_files_are_called_as_people_know_them(tmp_path: Path) -> None:
    files = ["simclr", str(tmp_path / "mine.toml"), str(tmp_path / "runs" / "a" / "recipe.toml")]
    assert list(named(files)) == ["simclr", "mine", "a"]


def test_curves_are_means_over_seeds(written: Any, logged: Any) -> None:
    runs = [
        read(written("low", lines=logged(3, top1=0.6))),
        read(written("high", lines=logged(3, top1=0.8))),
    ]
    mean = mean_over_seeds(runs, "both")
    assert mean.name == "both" and mean.value("knn_top1") == pytest.approx(0.7)
    assert mean.points("loss") == runs[0].points("loss")


def test_the_page_has_every_method_and_escapes_it(
    tmp_path: Path, written: Any, logged: Any
) -> None:
    found = stood(tmp_path / "results", {EVIL: [0.8, 0.9, 0.85], "byol": [0.7, 0.6, 0.65]})
    methods = [read(written(f"run-{n}"), place.name) for n, place in enumerate(found.places)]
    text = comparison_page(methods, found, f"{EVIL} on digits")
    assert EVIL not in text and "&lt;img src=x" in text
    begin = text.index('id="specs">') + len('id="specs">')
    specs = json.loads(text[begin : text.index("</script>", begin)])
    drawn = vl_convert.vegalite_to_svg({**specs["places"], "width": 500})
    assert drawn.count('aria-roledescription="circle"') == 6
    assert "byol" in drawn


def test_real_runs_end_with_a_table_and_a_page(
    photographs: Path, tmp_path: Path, coview_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("coview_byol")
    monkeypatch.chdir(tmp_path)
    words = ("compare", "simclr", "byol", "--data", photographs, "--steps", 2, "--seeds", 1)
    words = (*words, "--batch-size", 16, *SMALL, "--device", "cpu")
    answer = coview_command(*words)
    lines = answer.stdout.splitlines()
    assert lines[0] == f"resnet10-quarter, {photographs}, 2 steps, 1 seed:"
    assert {line.split()[0] for line in lines[2:4]} == {"simclr", "byol"}
    page = Path(next(line for line in lines if line.startswith("page: ")).removeprefix("page: "))
    assert page.is_file()
    more, last = answer.stderr.splitlines()[-2:]
    assert more.startswith("next: coview compare simclr byol ") and more.endswith("--seeds 3")
    assert last.startswith("next: coview report comparisons/runs/")
    assert (Path(last.split()[-1]) / "run.json").is_file()
    document = json.loads(page.with_suffix(".json").read_text())
    kept = [json.loads(path.read_text()) for path in Path("comparisons").glob(f"runs/*/{RESULT}")]
    assert sorted(one["values"]["knn"] for one in kept) == sorted(
        share for method in document["methods"] for share in method["by_seed"]
    )
    assert all(one["steps"] == 2 and one["values"]["seconds"] > 0 for one in kept)
    # Nothing is left to do, and the answer is the same.
    again = coview_command(*words, "--json")
    assert "2 of 2 runs are done already" in again.stderr
    assert json.loads(again.stdout) == document
    assert "rehearsing" in answer.stderr and "rehearsing" not in again.stderr
    # With a second seed, the first one's table is there before the second is done.
    more = coview_command(*(2 if word == 1 else word for word in words))
    told = more.stderr.splitlines()
    place = told.index("so far, with 1 of 2 seeds:")
    assert {line.split()[0] for line in told[place + 2 : place + 4]} == {"simclr", "byol"}
    assert not any("rehearsing" in line for line in told)
    assert "so far" not in answer.stderr + more.stdout
    assert sum("so far" in line for line in told) == 1


@pytest.mark.slow
def test_a_killed_comparison_ends_with_the_same_numbers(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("coview_byol")
    words = ["compare", "simclr", "byol", "--data", photographs, "--steps", 6, "--seeds", 2]
    words += ["--batch-size", 16, *SMALL, "--device", "cpu", "--processes", 1, "--json"]
    command = [sys.executable, "-m", "coview", *map(str, words)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}

    def answer(folder: str) -> Any:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        done = subprocess.run(command, cwd=place, env=variables, capture_output=True, check=True)
        found = json.loads(done.stdout)
        for method in found["methods"]:
            assert method.pop("seconds") > 0
        return found

    whole = answer("whole")
    killed = tmp_path / "killed"
    killed.mkdir()
    nowhere = subprocess.DEVNULL
    child = subprocess.Popen(
        command, cwd=killed, env=variables, stdout=nowhere, stderr=nowhere, start_new_session=True
    )
    end = time.monotonic() + 240
    while not list(killed.glob("comparisons/runs/*/metrics.jsonl")):
        assert time.monotonic() < end, "no run began"
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert len(list(killed.glob(f"comparisons/runs/*/{RESULT}"))) < 4
    assert answer("killed") == whole
