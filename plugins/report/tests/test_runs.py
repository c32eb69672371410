"""``coview runs``: the index follows the directories, whatever happens to either."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coview.errors import RequestError
from coview.locks import Hold
from coview_report.index import FILE, Index

Command = Callable[..., Any]
Written = Callable[..., Path]
Logged = Callable[..., list[dict[str, Any]]]
RECIPE = 'name = "x"\nepochs = 3\n[loss]\nuse = "info-nce"\ntemperature = {}\n'


@pytest.fixture
def folder(written: Written, logged: Logged) -> Path:
    """Three runs at two depths."""
    written("runs/a", recipe=RECIPE.format(0.1), lines=logged(3, top1=0.9))
    byol = {"method": "byol", "started": "2026-02-01T10:00:00+00:00", "finished": None}
    written("runs/b", recipe=RECIPE.format(0.3), lines=logged(2)[:-1], **byol)
    third = {"method": "byol", "finished": "2026-01-01T10:00:30+00:00"}
    return written("runs/deep/c", recipe=RECIPE.format(0.2), **third).parent.parent


def names(folder: Path, where: str = "", sort: str = "", limit: int = 0) -> list[str]:
    index = Index(folder)
    found, _ = index.rows(where, sort, limit)
    index.close()
    return [row["run"] for row in found]


def test_all_runs_the_newest_first(folder: Path, coview_command: Command) -> None:
    rows = json.loads(coview_command("runs", "list", folder, "--json").stdout)
    assert [row["run"] for row in rows] == ["b", "a", str(Path("deep", "c"))]
    found = {row["run"]: row for row in rows}
    assert found["a"]["knn_top1"] == 0.9 and found["a"]["loss"] == pytest.approx(5 / 3)
    assert found["a"]["seconds"] == 3723 and found["b"]["seconds"] is None
    assert found["b"]["epoch"] == 2 and found["b"]["state"] == "interrupted"
    told = coview_command("runs", "list", folder, "-n", 2)
    assert told.stdout.splitlines()[1].split()[:5] == ["b", "byol", "digits", "interrupted", "2/3"]
    assert "3 runs, of which the first 2" in told.stderr


@pytest.mark.parametrize(
    "where, expected",
    [
        ("method = 'byol' and knn_top1 > 0.7", ["deep/c"]),
        ("state = 'interrupted'", ["b"]),
        ("loss.temperature < 0.25", ["a", "deep/c"]),
        ("loss = 'loss.temperature'", []),
        ("run like 'deep%' or data = 'other'", ["deep/c"]),
    ],
)
def test_where(folder: Path, where: str, expected: list[str]) -> None:
    assert sorted(names(folder, where)) == expected


def test_sorting(folder: Path) -> None:
    assert names(folder, sort="-knn_top1") == ["a", "deep/c", "b"]
    assert names(folder, sort="run", limit=2) == ["a", "b"]


@pytest.mark.parametrize(
    "words, said",
    [
        (("--where", "colour = 1"), "no such column: colour"),
        (("--where", "1) ; drop table runs --"), "--where"),
        (("--sort", "colour"), "There is no column 'colour'"),
    ],
)
def test_wrong_questions(
    words: tuple[str, ...], said: str, folder: Path, coview_command: Command
) -> None:
    answer = coview_command("runs", "list", folder, *words, status=2)
    assert said in answer.stderr and "knn_top1" in answer.stderr
    assert len(names(folder)) == 3


def test_a_question_cannot_write(folder: Path) -> None:
    index = Index(folder)
    with pytest.raises(RequestError):
        index.rows("1) union select 1; delete from runs where (1")
    index.close()
    assert len(names(folder)) == 3


def test_the_index_follows_the_directories(folder: Path, logged: Logged) -> None:
    assert len(names(folder)) == 3
    lines = logged(3, top1=0.95)
    metrics = folder / "b" / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert names(folder, "knn_top1 > 0.92") == ["b"]
    shutil.rmtree(folder / "a")
    (folder / "deep" / "c").rename(folder / "d")
    assert sorted(names(folder)) == ["b", "d"]


@pytest.mark.parametrize("damage", ["garbage", "gone", "other version", "other table"])
def test_a_damaged_index_is_made_anew(folder: Path, damage: str) -> None:
    before = names(folder)
    file = folder / FILE
    if damage == "garbage":
        file.write_bytes(b"SQLite format 3\0" + b"x" * 500)
    elif damage == "gone":
        file.unlink()
    else:
        database = sqlite3.connect(file)
        database.execute("DROP TABLE runs")
        database.execute("CREATE TABLE runs (run TEXT)")
        database.execute(f"PRAGMA user_version = {99 if damage == 'other version' else 1}")
        database.commit()
        database.close()
    assert names(folder) == before


def test_a_folder_that_cannot_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / FILE).mkdir()  # no file can be there, for root neither
    assert len(names(folder)) == 3


def test_states_follow_locks(folder: Path) -> None:
    assert names(folder, "state = 'running'") == []
    with Hold(folder / "b" / ".lock", "busy"):
        assert names(folder, "state = 'running'") == ["b"]
    (folder / "b" / ".lock").touch()  # as a kill leaves it
    assert names(folder, "state = 'interrupted'") == ["b"]
    facts = json.loads((folder / "b" / "run.json").read_text())
    (folder / "b" / "run.json").write_text(json.dumps({**facts, "failed": "diverged"}))
    assert names(folder, "state = 'failed'") == ["b"]


def test_damaged_files_do_not_hide_the_others(folder: Path) -> None:
    (folder / "a" / "run.json").write_text("{")
    (folder / "b" / "recipe.toml").write_text("= [")
    (folder / "b" / "metrics.jsonl").write_bytes(b'["loss"]\n\xff\n{"loss": 1')
    assert sorted(names(folder)) == ["a", "b", "deep/c"]


def test_diff(folder: Path, coview_command: Command) -> None:
    answer = coview_command("runs", "diff", folder / "a", folder / "deep" / "c", "--json")
    found = json.loads(answer.stdout)
    assert found["settings"] == {"method": ["mine", "byol"], "loss.temperature": [0.1, 0.2]}
    assert found["results"]["knn_top1"] == [0.9, 0.8]
    assert (
        "loss.temperature  0.1"
        in coview_command("runs", "diff", folder / "a", folder / "deep" / "c").stdout
    )
    assert "No setting differs" in coview_command("runs", "diff", folder / "a", folder / "a").stdout


def test_best(folder: Path, coview_command: Command) -> None:
    (row,) = json.loads(coview_command("runs", "best", folder, "--json").stdout)
    assert row["run"] == "a"
    (row,) = json.loads(
        coview_command("runs", "best", folder, "--where", "method = 'byol'", "--json").stdout
    )
    assert row["run"] == "deep/c"
    assert coview_command("runs", "best", folder, "--by", "nothing", status=2).stderr


def test_removing_asks(folder: Path, coview_command: Command) -> None:
    coview_command("runs", "rm", folder / "a", status=1, input="n\n")
    assert (folder / "a").is_dir()
    coview_command("runs", "rm", folder / "a", input="y\n")
    assert sorted(names(folder)) == ["b", "deep/c"]


def test_only_runs_that_nobody_trains_are_removed(folder: Path, coview_command: Command) -> None:
    with Hold(folder / "b" / ".lock", "busy"):
        answer = coview_command("runs", "rm", folder / "b", folder, "--yes", status=2)
    assert "is being trained" in answer.stderr and "There is no run at" in answer.stderr
    assert len(names(folder)) == 3


def test_a_link_to_a_run_is_removed_and_the_run_stays(
    folder: Path, coview_command: Command
) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder / "a")
    coview_command("runs", "rm", link, "--yes")
    assert not link.exists() and (folder / "a" / "run.json").exists()
