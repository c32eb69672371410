"""The page of a run: one file, safe, small, and about what the run's files say."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import vl_convert
from PIL import Image

from coview.errors import RequestError
from coview.locks import Hold
from coview_report import charts, images, looking
from coview_report import page as pages
from coview_report.bundle import program
from coview_report.page import LIMIT, page
from coview_report.provenance import told
from coview_report.reading import read, read_all
from coview_report.states import state
from coview_report.summary import duration, summary

EVIL = "<img src=x onerror=alert(1)>"
OLD = Path(__file__).resolve().parents[3] / "tests" / "data" / "run-0.1"
Command = Callable[..., Any]
Written = Callable[..., Path]
Logged = Callable[..., list[dict[str, Any]]]


class Parsed(HTMLParser):
    """A page's elements, the addresses that it would ask for, and its text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))
        self.text += " "
        if tag in ("script", "style"):
            self.inside = [tag, dict(attributes).get("id") or ""]

    def handle_endtag(self, tag: str) -> None:
        if self.inside and tag == self.inside[0]:
            self.inside = []

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.text += data
        elif self.inside[0] == "script":
            name = self.inside[1]
            self.scripts[name] = self.scripts.get(name, "") + data

    @property
    def addresses(self) -> list[str]:
        named = ("src", "href", "action", "data", "poster", "srcset")
        return [found[name] or "" for _, found in self.tags for name in named if name in found]

    @property
    def specs(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts["specs"])
        return found

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def parsed(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def drawn(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the run that was trained."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    runs = read_all([trained])
    out.write_text(page(runs, looking.look(trained, device="cpu")), encoding="utf-8")
    return out


def test_a_page_is_one_small_file_that_asks_for_nothing(drawn: Path) -> None:
    found = parsed(drawn)
    assert drawn.stat().st_size < LIMIT == 5_000_000
    assert [a for a in found.addresses if not a.startswith("data:")] == []
    assert not {tag for tag, _ in found.tags} & {"iframe", "link rel", "object", "embed", "base"}
    style = re.search(r"<style>(.*?)</style>", drawn.read_text(encoding="utf-8"), re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    policy = next(a["content"] for t, a in found.tags if "Content-Security" in str(a))
    assert "default-src 'none'" in policy and "connect-src" not in policy and "http" not in policy


def test_names_of_files_are_text(drawn: Path) -> None:
    found = parsed(drawn)
    heading = found.words.index(EVIL)
    assert EVIL in found.words[heading + len(EVIL) :], "the class of a neighbour"
    assert not [a for t, a in found.tags if t == "img" and a.get("src") == "x"]
    assert not [name for _, a in found.tags for name in a if name.startswith("on")]
    # In a script, no text may end it or begin a comment.
    for name in ("specs", "images"):
        assert "<" not in found.scripts[name]


def test_a_page_has_its_parts_in_order(drawn: Path) -> None:
    found = parsed(drawn)
    sections = [a["id"] for t, a in found.tags if t == "section"]
    expected = ["verdict", "training", "map", "neighbours", "views", "recipe", "environment"]
    assert [name for name in sections if name in expected] == expected
    assert {"loss", "lr", "images_per_second", "knn", "map-0"} <= set(found.specs)
    assert "kNN top-1 accuracy" in found.text and "test images" in found.text
    assert all(a.get("alt") for t, a in found.tags if t == "img")


def test_every_chart_can_be_drawn(drawn: Path) -> None:
    for name, spec in parsed(drawn).specs.items():
        spec = {**spec, "width": 300}
        assert vl_convert.vegalite_to_svg(spec).count("<path") >= 2, name


def test_the_map_shows_the_image_of_each_point(drawn: Path) -> None:
    found = parsed(drawn)
    rows = found.specs["map-0"]["data"]["values"]
    pictures = json.loads(found.scripts["images"])
    assert len(rows) == len(pictures) == 10
    assert sorted(row["tip"]["image"] for row in rows) == list(range(10))
    assert {row["tip"]["class"] for row in rows} == {EVIL, "red", "blue"}
    assert "All 10 test images" in found.words


def test_an_image_in_the_page_is_the_image(tmp_path: Path) -> None:
    import base64
    import io

    pixels = torch.zeros(3, 40, 20)
    pixels[0], pixels[2, 20:] = 1.0, 1.0
    found = images.of_pixels(pixels, 20)
    kind, _, text = found.partition(";base64,")
    assert kind in ("data:image/webp", "data:image/png")
    opened = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    assert opened.size == (10, 20)
    (r, _, b), (_, _, below) = opened.getpixel((5, 3)), opened.getpixel((5, 17))
    assert r > 200 and b < 60 and below > 200


def test_a_run_has_one_colour_on_the_whole_page(written: Written, logged: Logged) -> None:
    both = [read(written("first", lines=logged(3)))]
    alone = [*logged(3), *({"step": n, "epoch": n, "variance": 0.5 / n} for n in (1, 2, 3))]
    both.append(read(written("second", lines=alone)))
    config = {"range": {"category": ["#111111", "#222222"]}}

    def colours(metric: str) -> set[str]:
        spec = charts.curve(both, metric, "title")
        drawn = vl_convert.vegalite_to_svg({**(spec or {}), "width": 300, "config": config})
        return set(re.findall(r'stroke="(#(?:111|222){2})"', drawn))

    assert colours("loss") == {"#111111", "#222222"}
    assert colours("variance") == {"#222222"}


def test_a_logarithmic_axis_has_lines_at_powers_of_ten(written: Written, logged: Logged) -> None:
    lines = [{"step": n, "epoch": n, "grad_norm": 0.3 * 5**n} for n in range(4)]
    spec = charts.curve([read(written(lines=lines))], "grad_norm", "norm", log=True)
    axes = [layer["encoding"]["y"].get("axis", {}) for layer in (spec or {})["layer"]]
    assert axes[0]["values"] == [0.1, 1, 10, 100]
    near = [{"step": n, "epoch": n, "grad_norm": 2.0 + n} for n in range(4)]
    spec = charts.curve([read(written("near", lines=near))], "grad_norm", "norm", log=True)
    assert "values" not in (spec or {})["layer"][0]["encoding"]["y"]["axis"]


def test_the_classes_of_a_map_are_told_below_it(drawn: Path, trained: Path) -> None:
    found = parsed(drawn)
    dots = [a["style"] for t, a in found.tags if t == "i" and a.get("class") == "dot"]
    assert dots == ["--n: var(--c0)", "--n: var(--c1)", "--n: var(--c2)"]
    assert f"{EVIL} blue red" in found.words
    colour = found.specs["map-0"]["encoding"]["color"]
    assert colour["scale"]["domain"] == [EVIL, "blue", "red"] and colour["legend"] is None
    many = [str(number) for number in range(charts.MOST_COLOURS + 1)]
    assert charts.told_apart(many[1:]) and not charts.told_apart(many)
    spec = charts.embedding_map([{"x": 0, "y": 0, "class": "1"}], many, "map")
    assert spec["encoding"]["color"]["scale"]["scheme"] == "sinebow"


def test_a_large_map_is_thinned_until_the_page_is_small(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = read_all([written()])
    point = {"x": 0.0, "y": 0.0, "image": "data:image/png;base64," + "A" * 2_000}
    found = looking.Map("PCA", tuple(dict(point) for _ in range(64)), (), 64, 50_000, "test")
    monkeypatch.setattr(pages, "LIMIT", len(program()) + 90_000)
    text = page(runs, looking.Looked(maps=(found,)))
    assert len(text.encode()) <= pages.LIMIT
    assert re.search(r"(16|32) of 50,000 test images", " ".join(Parsed(text).text.split()))


def test_long_curves_are_means_of_neighbouring_readings() -> None:
    points = [(float(n), float(n % 2)) for n in range(10_000)]
    found = charts.thinned(points, 100)
    assert len(found) == 100 and found[-1] == points[-1]
    assert {y for _, y in found[:-1]} == {0.5}
    assert charts.thinned([(0.0, float("nan")), (1.0, 2.0)]) == [(1.0, 2.0)]


def test_a_thousand_epochs_fit(written: Written, logged: Logged) -> None:
    text = page(read_all([written(lines=logged(1_000, per_epoch=4))]))
    assert len(text.encode()) < 2_000_000


def test_the_command_writes_into_the_run(written: Written, coview_command: Command) -> None:
    run = written()
    answer = coview_command("report", run, "--no-pictures", "--json")
    facts = json.loads(answer.stdout)
    assert Path(facts["out"]) == run / "report.html"
    assert (run / "report.html").stat().st_size == facts["bytes"]
    found = parsed(run / "report.html")
    assert "It learned: better than raw pixels and the untrained network" in found.words
    assert "coview train mine --out run" in found.words and "/opt/bin" not in found.words
    assert "1 h 2 min" in found.words


def test_a_path_that_is_no_run_is_refused(tmp_path: Path, coview_command: Command) -> None:
    answer = coview_command("report", tmp_path / "gone", status=2)
    assert "There is no run at" in answer.stderr and "Traceback" not in answer.stderr


def test_a_run_without_evaluation_or_metrics(written: Written, coview_command: Command) -> None:
    some = [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 1.0}]
    run = written(lines=some)
    coview_command("report", run, "--no-pictures")
    found = parsed(run / "report.html")
    assert "no accuracy was measured" in found.words
    assert set(found.specs) == {"loss"}
    (run / "metrics.jsonl").unlink()
    coview_command("report", run, "--no-pictures")
    assert not [t for t, _ in parsed(run / "report.html").tags if t == "script"]


def test_a_line_that_a_kill_cut_off_is_left_out(written: Written) -> None:
    run = written(finished=None)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "epo')
    found = read(run)
    assert found.metrics[-1]["step"] == 6 and len(found.points("loss")) == 6
    assert "Stopped before its end" in page([found])


def test_missing_weights_and_data_are_said(written: Written, coview_command: Command) -> None:
    run = written(data={"name": "folder:/gone", "fingerprint": "x"})
    answer = coview_command("report", run)
    assert "note: The map and the neighbours need the weights" in answer.stderr
    assert "No picture of the views" in answer.stderr
    assert "No picture of the views" in parsed(run / "report.html").words


def test_a_run_of_version_0_1(tmp_path: Path, coview_command: Command) -> None:
    pytest.importorskip("coview_moco_v2")
    run = Path(shutil.copytree(OLD, tmp_path / "old"))
    coview_command("report", run, "--device", "cpu")
    found = parsed(run / "report.html")
    assert {"loss", "map-0"} <= set(found.specs)
    assert "negatives.size 256" in found.words and "Worse than raw pixels" in found.words


def test_a_recipe_says_where_its_values_come_from(trained: Path) -> None:
    found = told(read(trained))
    assert found.known
    training = {s.name: s for s in found.tables[0].settings}
    assert training["batch_size"].changed and training["batch_size"].value == "16"
    changes = {name: (value, before) for name, value, before in found.changes}
    assert changes["batch_size"][1] == training["batch_size"].instead_of
    assert changes["backbone"][0] == "resnet10-quarter"
    assert "loss.temperature" not in changes
    loss = next(table for table in found.tables if table.role == "loss")
    assert loss.package == "coview-cpc"
    assert "none" in {table.component for table in found.tables if table.role == "knn"}
    words = Parsed(page(read_all([trained]))).words
    parts = words[words.index("Where its parts come from") : words.index("Environment")]
    assert "loss info-nce coview-cpc" in parts and "knn none" not in parts
    assert {s.name: s for s in loss.settings}["temperature"].help


def test_a_recipe_of_parts_that_are_not_installed_is_shown_as_written(written: Written) -> None:
    recipe = 'name = "mine"\nepochs = 3\n[loss]\nuse = "gone"\nmargin = 0.5\n'
    found = told(read(written(recipe=recipe)))
    assert not found.known
    assert [(t.role, t.component) for t in found.tables] == [("training", ""), ("loss", "gone")]
    assert found.tables[1].settings[0].value == "0.5"


@pytest.mark.parametrize(
    "top1, tone, words",
    [
        (0.8, "good", "It learned"),
        (0.45, "bad", "Worse than raw pixels"),
        (0.52, "open", "Not clearly better than raw pixels"),
    ],
)
def test_the_verdict(top1: float, tone: str, words: str, written: Written, logged: Logged) -> None:
    found = summary(read(written(lines=logged(3, top1=top1))), "finished")
    assert found.tone == tone and found.headline.startswith(words)
    assert [bar.share for bar in found.bars] == [0.5, 0.4, top1]
    # 1.96 standard errors of a share of 1,000 images.
    assert found.bars[0].chance == pytest.approx(1.96 * (0.25 / 1000) ** 0.5)


def test_a_collapse_is_the_verdict(written: Written, logged: Logged) -> None:
    lines = [*logged(3), {"step": 6, "epoch": 3.0, "collapse": "std", "warning": "All the same."}]
    found = summary(read(written(lines=lines)), "finished")
    assert found.headline == "The embeddings collapsed" and "All the same." in found.sentences


@pytest.mark.parametrize("seconds, text", [(12, "12 s"), (185, "3 min 5 s"), (7260, "2 h 1 min")])
def test_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_several_runs(written: Written, logged: Logged, coview_command: Command) -> None:
    first = written("a/run", recipe='name = "mine"\nepochs = 3\n[loss]\ntemperature = 0.1\n')
    second = written(
        "b/run",
        recipe='name = "mine"\nepochs = 3\n[loss]\ntemperature = 0.2\n',
        lines=logged(4, top1=0.7),
    )
    out = first.parent.parent / "both.html"
    coview_command("report", first, second, "--out", out)
    found = parsed(out)
    sections = [a["id"] for t, a in found.tags if t == "section"]
    assert sections == ["runs", "differences", "results", "training", "collapse"]
    assert "a/run" in found.words and "b/run" in found.words
    assert re.search(r"loss.temperature 0.1 0.2", found.words)
    spec = found.specs["loss"]
    values = next(iter(spec.get("datasets", {"": spec.get("data", {}).get("values")}).values()))
    assert {row["run"] for row in values or []} == {"a/run", "b/run"}


def test_runs_of_one_path_are_one_run(written: Written) -> None:
    run = written()
    assert len(read_all([run, run, Path(os.path.relpath(run))])) == 1
    with pytest.raises(RequestError, match="There is no run"):
        read_all([run, run.parent / "other"])


def test_states_are_true(written: Written) -> None:
    run = written(finished=None)
    facts = read(run).facts
    assert state(run, facts) == "interrupted"
    with Hold(run / ".lock", "busy"):
        assert state(run, facts) == "running"
    assert state(run, facts) == "interrupted"
    assert state(run, {**facts, "failed": "diverged"}) == "failed"
    assert state(run, read(written("done")).facts) == "finished"


def test_a_killed_run_is_not_running(written: Written) -> None:
    run = written(finished=None)
    code = (
        "import sys, time; from pathlib import Path; from coview.locks import Hold\n"
        f"held = Hold(Path({str(run / '.lock')!r}), 'busy'); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert state(run, {}) == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (run / ".lock").exists()
    assert state(run, {}) == "interrupted"


def test_the_bounds_are_the_observers() -> None:
    from coview.training.observers.collapse import CollapseObserver

    bounds = attrs.asdict(CollapseObserver.Settings())
    for metric, setting in {
        "collapse/std": "std",
        "collapse/effective_rank": "rank",
        "assignment_information": "information",
    }.items():
        assert charts.COLLAPSE[metric][1].bound == bounds[setting]
