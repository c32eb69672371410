"""Looking: a picture of views, and of the images nearest to others, with the list of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import coview
from coview.data.sources.arrays import OBJECT
from coview.views import sheet
from coview_simclr.views import SimCLRViews

Run = Callable[..., Any]
Pixels = np.ndarray[Any, Any]


def pieces(inked: Pixels) -> list[slice]:
    """Return the runs of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, inked, False].astype(int)))
    return [slice(start, end) for start, end in edges.reshape(-1, 2)]


def cells(path: str | Path) -> list[list[Pixels]]:
    """Return the pictures on a sheet, by row: what is parted by white and higher than text."""
    with Image.open(path) as opened:
        assert opened.format == "PNG" and opened.mode == "RGB"
        drawn = np.asarray(opened).astype(int)
    inked = (drawn < 250).any(2)
    rows = [rows for rows in pieces(inked.any(1)) if rows.stop - rows.start > 2 * sheet.LINE]
    found = []
    for row in rows:
        columns = pieces(inked[row].any(0))
        found.append(
            [drawn[row, columns_][pieces_] for columns_, pieces_ in _own(inked[row], columns)]
        )
    return found


def _own(inked: Pixels, columns: Sequence[slice]) -> list[tuple[slice, slice]]:
    """Return each column with the rows of the picture in it, without the text below."""
    found = []
    for column in columns:
        parts = pieces(inked[:, column].any(1))
        found.append((column, max(parts, key=lambda part: part.stop - part.start)))
    return found


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the views that are drawn."""
    kept: list[str] = []
    drawing = sheet.draw_sheet

    def keep(titles: Sequence[str], *rest: Any, **more: Any) -> Any:
        kept[:] = titles
        return drawing(titles, *rest, **more)

    monkeypatch.setattr(sheet, "draw_sheet", keep)
    return kept


CROPS_ALONE = [
    word
    for name in ("flip_p", "jitter_p", "grey_p", "blur_p", "solarize_p")
    for word in ("--set", f"views.{name}=0.0")
]
"""Views of which there is nothing to say below them."""


@pytest.mark.parametrize("method", ["simclr", "byol", "instdisc"])
def test_views_draws_a_picture(run: Run, photos: Path, method: str, titles: list[str]) -> None:
    second = ("--set", "views.second_blur_p=0.0", "--set", "views.second_solarize_p=0.0")
    alone = (*CROPS_ALONE, *(second if method == "byol" else ()))
    options = ("--data", photos, "--images", 3, "--draws", 2, "--json", *alone)
    said = run("views", method, *options, "--out", "deep/v.png").json
    views = 1 if method == "instdisc" else 2
    assert said == {"out": "deep/v.png", "images": 3, "columns": 1 + 2 * views}
    with Image.open("deep/v.png") as opened:
        assert opened.format == "PNG" and opened.mode == "RGB"
        gap, line = sheet.GAP, sheet.LINE
        assert opened.size == (
            (1 + 2 * views) * (96 + gap) + gap,
            3 * (96 + gap) + 2 * gap + 3 * line,
        )
        drawn = np.asarray(opened)[2 * gap + 3 * line :, gap:]
    original, view = drawn[:96, :96], drawn[:96, 96 + gap : 2 * 96 + gap]
    assert original.std() > 10 and view.std() > 10 and (original != view).any()
    run("views", method, *options, "--out", "again.png", "--seed", 0)
    run("views", method, *options, "--out", "other.png", "--seed", 1)
    one, again, other = (Path(p).read_bytes() for p in ("deep/v.png", "again.png", "other.png"))
    assert one == again != other
    assert titles[:2] == ["original\n24 x 24", "view 1\n24 x 24\ndraw 1"]
    assert titles[-1] == f"view {views}\n24 x 24\ndraw 2"


def test_views_obeys_the_recipe(run: Run, idx: Path) -> None:
    # Without any change a view is the image.
    whole = ("--set", "views.crop_scale=[1.0, 1.0]", "--set", "views.crop_ratio=[1.0, 1.0]")
    run("views", "simclr", "--data", f"idx:{idx}", "--out", "v.png", *CROPS_ALONE, *whole)
    original, view = (cell[3:-3, 3:-3] for cell in cells("v.png")[0][:2])  # within its frame
    assert original.std() > 10 and abs(original - view).max() <= 2


def test_small_crops_are_drawn_smaller(run: Run, photos: Path, titles: list[str]) -> None:
    options = ("--data", photos, "--image-size", 64, "--preset", "small-multi-crop", "--draws", 1)
    options = (*options, *CROPS_ALONE)
    run("views", "swav", *options, "--set", "views.size=[56, 18]", "--out", "v.png", "--images", 2)
    said = [title.split("\n") for title in titles]
    assert [title[0] for title in said[:4]] == ["original", "view 1", "view 2", "small crop 3"]
    sizes = [title[1] for title in said]
    assert sizes == ["64 x 64", *["56 x 56"] * 2, *["18 x 18"] * 6]
    (first, second) = cells("v.png")
    assert len(first) == len(said)
    for row in (first, second):
        widths = [cell.shape[1] for cell in row]
        assert widths[:3] == [96, 84, 84], "56 of 64 pixels"
        assert widths[3:] == [27] * 6, "18 of 64"


def test_a_page_says_what_was_done(run: Run, photos: Path) -> None:
    folder = photos.parent / "<script>alert(1)</script>"
    shutil.copytree(photos, folder, dirs_exist_ok=True)
    sure = ["views.flip_p=1.0", "views.grey_p=1.0", "views.jitter_p=0.0", "views.blur_p=0.0"]
    options = [word for setting in sure for word in ("--set", setting)]
    files = ("--out", "v.png", "--html", "deep/v.html", "--images", 2, "--draws", 1)
    said = run("views", "simclr", "--data", folder, *files, *options, "--json").json
    assert said == {"out": "v.png", "html": "deep/v.html", "images": 2, "columns": 3}
    page = Path("deep/v.html").read_text("utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert page.count("<figure>") == 6 and page.count("<li>flip</li><li>grey</li>") == 4
    # Each of the four crops frames its view and is outlined in its image, in one colour.
    assert page.count("<rect ") == 8
    assert page.count(f"rgb{sheet.COLOURS[0]}") == page.count(f"rgb{sheet.COLOURS[1]}") == 4
    assert set(re.findall(r'(?:href|src)="([^,"]*)', page)) == {"data:image/png;base64"}


def test_every_component_of_a_mixture_is_drawn(
    run: Run, refused: Run, idx: Path, titles: list[str]
) -> None:
    options = ("--data", f"idx:{idx}", "--images", 1, "--draws", 1, "--out", "v.png")
    run("views", "simclr", *options, "--use", "views=simclr,multi-crop")
    below = [title.split("\n")[2:] for title in titles]
    assert below == [[], *[["simclr"]] * 2, *[["multi-crop"]] * 8]


def test_views_that_ask_for_a_field_get_it(
    run: Run, refused: Run, idx: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    making = SimCLRViews.generate_views

    def generate_views(self: Any, batch: Any, step: Any) -> Any:
        seen.append(dict(batch.fields))
        return making(self, batch, step)

    monkeypatch.setattr(SimCLRViews, "generate_views", generate_views)
    options = ("--images", 3, "--out", "v.png")
    run("views", "simclr", "--data", f"idx:{idx}", *options)
    assert seen == [{}, {}]
    monkeypatch.setattr(SimCLRViews, "needs_fields", ("labels",), raising=False)
    run("views", "simclr", "--data", f"idx:{idx}", *options)
    assert seen[-1]["labels"].tolist() == [0, 1, 2]
    (problem,) = refused("views", "simclr", "--data", photos / "class0", *options)
    assert problem.startswith("views 'simclr' need labels, which folder:")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A run with settings of its own, on images of its own."""
    folder = tmp_path_factory.mktemp("run")
    images = Path(shutil.copytree(photos, folder / "photos"))
    run = coview.train(
        "simclr",
        images,
        out=folder / "run",
        preset="small",
        batch_size=16,
        backbone="resnet10-quarter",
        image_size=24,
        max_steps=4,
        set={"views.grey_p": 1.0},
        seed=5,
        device="cpu",
        progress=False,
    )
    return run.path


def test_views_of_a_run_are_its_own(
    run: Run, trained: Path, idx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("views", trained, "--out", "own.png", "--images", 3)
    file, data = trained / "recipe.toml", trained.parent / "photos"
    run("views", file, "--data", data, "--seed", 5, "--out", "same.png", "--images", 3)
    assert Path("own.png").read_bytes() == Path("same.png").read_bytes()
    grey = [cell[3:-3, 3:-3] for row in cells("own.png") for cell in row[1:]]  # in frames
    grey = [cell[:, : cell.shape[0]] for cell in grey]  # a caption may be wider
    assert all((cell == cell[..., :1]).all() for cell in grey), "views.grey_p is 1 in this run"
    run("views", trained, "--seed", 6, "--out", "other.png", "--images", 3)
    assert Path("own.png").read_bytes() != Path("other.png").read_bytes()
    # Images of three classes: their stripes lie across, upright and aslant.
    monkeypatch.setattr(sheet, "OUTLINE", 0)
    run("views", trained, "--out", "plain.png", "--images", 3)
    steps = [
        [abs(np.diff(row[0], axis=axis)).mean() for axis in (0, 1)] for row in cells("plain.png")
    ]
    down, right, slant = [along / across for along, across in steps]
    assert down > 2 and right < 1 / 2 and 1 / 2 < slant < 2
    run("views", trained, "--data", f"idx:{idx}", "--out", "idx.png", "--set", "views.grey_p=0.0")


def test_a_run_of_an_object_needs_its_data(run: Run, refused: Run, trained: Path) -> None:
    copy = Path(shutil.copytree(trained, "copy"))
    facts = json.loads((copy / "run.json").read_text())
    facts["data"]["name"] = OBJECT
    (copy / "run.json").write_text(json.dumps(facts))
    (problem,) = refused("views", copy, "--out", "v.png")
    assert problem == "This run's data were a Python object. Name other data: --data."
    (problem,) = refused("neighbours", copy)
    assert problem.startswith("This run's data were a Python object: name other data (--data)")
    # The name of a method is the method, and no run that lies there.
    shutil.move(copy, "simclr")
    run("views", "simclr", "--out", "v.png", "--images", 1)


@pytest.fixture
def embedded(run: Run, trained: Path) -> dict[str, Pixels]:
    run("embed", trained, "--out", "e.npz")
    with np.load("e.npz") as table:
        return dict(table)


def nearest(table: dict[str, Pixels], query: int, among: Pixels) -> list[int]:
    """Return rows by cosine, computed here."""
    rows = table["embeddings"] / np.linalg.norm(table["embeddings"], axis=1, keepdims=True)
    return [int(n) for n in np.argsort(-(rows @ rows[query]), kind="stable") if among[n]]


def test_a_photo_finds_its_neighbours(run: Run, trained: Path, embedded: dict[str, Pixels]) -> None:
    data = trained.parent / "photos"
    query = data / "class1" / "001.png"
    answer = run("neighbours", trained, "--query", query, "-k", 4, "--json")
    (found,) = answer.json["queries"]
    assert answer.json["out"] == "neighbours.png" and answer.json["searched"] == 60
    number = [*embedded["names"]].index("class1/001.png")
    assert (found["index"], found["path"], found["label"]) == (number, str(query), "class1")
    others = np.arange(60) != number
    indices = [each["index"] for each in found["neighbours"]]
    assert indices == nearest(embedded, number, others)[:4], "rows of coview embed, not itself"
    for each in found["neighbours"]:
        assert each["name"] == embedded["names"][each["index"]]
        assert Path(each["path"]) == data / each["name"] and Path(each["path"]).is_file()
        assert each["label"] == each["name"].split("/")[0]
    similarities = [each["similarity"] for each in found["neighbours"]]
    assert similarities == sorted(similarities, reverse=True) and similarities[0] < 1
    text = run("neighbours", trained, "--query", query, "-k", 4, "--out", "n.png").stdout
    first = found["neighbours"][0]
    said = text.splitlines()
    assert said[0] == f"{query}: class1" and len(said) == 5
    assert said[1].split() == [f"{similarities[0]:.3f}", first["label"], first["path"]]
    (row,) = cells("n.png")
    assert [cell.shape for cell in row] == [(96, 96, 3)] * 5
    # Frames, at the edge: green for its class, red for another, none around the query.
    right = [each["label"] == "class1" for each in found["neighbours"]]
    frames = [sheet.RIGHT if same else sheet.WRONG for same in right]
    assert [tuple(cell[0, 0]) for cell in row[1:]] == frames
    assert tuple(row[0][0, 0]) not in (sheet.RIGHT, sheet.WRONG)
    assert tuple(row[1][8, 8]) not in (sheet.RIGHT, sheet.WRONG)


def test_several_queries_and_folders(run: Run, trained: Path, tmp_path: Path) -> None:
    outside = tmp_path / "mine"
    outside.mkdir()
    inside = trained.parent / "photos" / "class0"
    for name in ("000.jpg", "003.png"):
        shutil.copy(inside / name, outside / f"my {name}")
    one = inside / "006.jpg"
    found = run("neighbours", trained, "--query", one, "--query", outside, "--json").json
    first, second, third = found["queries"]
    assert first["path"] == str(one) and first["label"] == "class0"
    assert second["path"] == str(outside / "my 000.jpg") and second["index"] is None
    # What is not of the data has no class, and its twin in the data is its nearest.
    assert second["label"] is None and third["neighbours"][0]["name"] == "class0/003.png"
    assert third["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    drawn = cells("neighbours.png")
    assert [len(row) for row in drawn] == [6, 6, 6]
    assert tuple(drawn[2][1][0, 0]) not in (sheet.RIGHT, sheet.WRONG), "no class, no frame"


def test_test_images_are_looked_for_among_training_images(
    run: Run, trained: Path, embedded: dict[str, Pixels]
) -> None:
    found = run("neighbours", trained, "--images", 5, "-k", 3, "--json").json
    assert found["searched"] == 48 and len(found["queries"]) == 5
    assert {each["label"] for each in found["queries"]} == {"class0", "class1", "class2"}
    for each in found["queries"]:
        assert embedded["split"][each["index"]] == "test"
        expected = nearest(embedded, each["index"], embedded["split"] == "train")[:3]
        assert [other["index"] for other in each["neighbours"]] == expected
    everything = run("neighbours", trained, "--images", 1, "-k", 500, "--json").json
    assert len(everything["queries"][0]["neighbours"]) == 48


def test_mistakes_are_those_of_the_vote_and_the_surest_come_first(
    run: Run, refused: Run, trained: Path, photos: Path
) -> None:
    accuracy = run("evaluate", "knn", trained, "--json").json
    missed = round((1 - accuracy["top1"]) * accuracy["test_images"])
    assert 0 < missed < 12, "this run makes some"
    found = run("neighbours", trained, "--mistakes", "--images", 20, "--json").json["queries"]
    assert len(found) == missed
    assert all(each["guess"] != each["label"] for each in found)
    sure = [each["confidence"] for each in found]
    assert sure == sorted(sure, reverse=True) and 1 / 3 < sure[-1] <= sure[0] <= 1
    two = run("neighbours", trained, "--mistakes", "--images", 2, "--json").json["queries"]
    for each, same in zip(two, found, strict=False):
        names = ("index", "label", "guess")
        assert [each[name] for name in names] == [same[name] for name in names]
    text = run("neighbours", trained, "--mistakes", "--images", 1).stdout.splitlines()[0]
    (each,) = two[:1]
    assert f": {each['label']}, taken for {each['guess']} ({100 * sure[0]:.0f} %)" in text
    photo = photos / "class0" / "000.jpg"
    assert refused("neighbours", trained, "--mistakes", "--query", photo) == [
        "Mistakes are looked for among the data's test images: give no query."
    ]
    (problem,) = refused("neighbours", trained, "--mistakes", "--data", photos / "class0")
    assert "has no labels" in problem


def test_data_without_classes(run: Run, trained: Path, photos: Path) -> None:
    found = run("neighbours", trained, "--data", photos / "class0", "--json").json["queries"]
    assert len(found) == 8 and all(each["label"] is None for each in found)
    text = run("neighbours", trained, "--data", photos / "class0", "-k", 1).stdout.splitlines()
    assert text[1].split()[1:] == [str(photos / "class0" / Path(text[1].split()[-1]).name)]


def test_what_cannot_be_looked_for(run: Run, refused: Run, trained: Path, tmp_path: Path) -> None:
    assert refused("neighbours", trained, "--query", "nowhere.jpg") == [
        "There is no file or folder nowhere.jpg to look for."
    ]
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused("neighbours", trained, "--query", tmp_path / "empty")[0]
    (tmp_path / "text.jpg").write_text("no image")
    answer = run("neighbours", trained, "--query", tmp_path / "text.jpg", status=1)
    assert "text.jpg cannot be decoded" in answer.errors[0] and "Traceback" not in answer.stderr
    weights = trained / "backbone.safetensors"
    assert refused("neighbours", weights) == [
        "Name the data (--data, in Python data=): only a run records what it was trained on."
    ]
    assert not Path("neighbours.png").exists()


def test_python_is_the_same(run: Run, trained: Path, photos: Path) -> None:
    query = photos / "class2" / "002.jpg"
    said = run("neighbours", trained, "--query", query, "--data", photos, "--json").json
    found = coview.neighbours(trained, query, photos, k=5, device="cpu")
    assert {"out": "neighbours.png", **found.as_dict()} == said
    assert len(found) == 1 and len(found[0].paths) == len(found[0].similarities) == 5
    assert found[0].indices == tuple(n["index"] for n in said["queries"][0]["neighbours"])
    assert repr(found).splitlines()[0] == f"{query}: class2"
    found.draw("python.png")
    assert Path("python.png").read_bytes() == Path("neighbours.png").read_bytes()
    images = np.stack(
        [np.asarray(Image.open(p)) for p in sorted((photos / "class0").glob("*.png"))]
    )
    arrays = coview.neighbours(trained, data=images.transpose(0, 3, 1, 2), images=2, device="cpu")
    assert len(arrays) == 2 and arrays[0].paths == (None,) * 5
    assert repr(arrays).startswith("image ")
    with pytest.raises(coview.RequestError, match="k must be at least 1, not 0"):
        coview.neighbours(trained, query, photos, k=0)


def test_a_finished_runs_own_network_and_data() -> None:
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    finished = coview.train(
        "simclr",
        (images, torch.arange(24) % 2),
        out="run",
        epochs=1,
        batch_size=4,
        image_size=16,
        backbone=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4)),
        evaluate=False,
        device="cpu",
    )
    shutil.rmtree("run")  # so it is the network in memory
    found = coview.neighbours(finished, images=3, k=2, device="cpu")
    assert len(found) == 3 and found.searched == len(finished.data.train)
    assert {p.label for each in found for p in each.neighbours} <= {"0", "1"}


def test_settings_of_the_data_apply(run: Run, refused: Run, trained: Path) -> None:
    half = run("neighbours", trained, "--set", "data.holdout=0.5", "--json").json
    assert half["searched"] == 30
    assert run("neighbours", trained, "--json").json["searched"] != 30
    found = coview.neighbours(trained, set={"data.holdout": 0.5}, device="cpu")
    assert found.as_dict() == {key: value for key, value in half.items() if key != "out"}
    (problem,) = refused("neighbours", trained, "--set", "data.holdot=0.5")
    assert "Did you mean 'holdout'" in problem


def test_an_unreadable_image_is_left_out_and_said(
    run: Run, trained: Path, photos: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "class0" / "003.png").write_bytes(b"no image")
    query = data / "class0" / "006.jpg"
    answer = run("neighbours", trained, "--query", query, "--data", data, "-k", 60, "--json")
    assert (
        "1 train images of " in answer.stderr and "cannot be read and are left out" in answer.stderr
    )
    names = [each["name"] for each in answer.json["queries"][0]["neighbours"]]
    assert len(names) == 58 and "class0/003.png" not in names and "class0/006.jpg" not in names
