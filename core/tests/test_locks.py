"""One process at a time: in a run's directory, in a pack's, at a file of results."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import coview
from coview.data.base import DataSettings
from coview.data.sources.folder import Folder
from coview.data.sources.packing import pack
from coview.errors import CoviewError, RequestError
from coview.evaluation.results import remember
from coview.locks import Hold
from coview.training.directory import made
from coview.training.loop import fit
from coview.training.request import Request
from coview.training.start import start

TINY: dict[str, Any] = {"backbone": "resnet10-quarter", "image_size": 16, "batch_size": 16}
HOLDER = """
import os, pathlib, sys, time
from coview.locks import Hold
hold = Hold(pathlib.Path(sys.argv[1]), "busy")
if not os.fork():  # as a data loader's worker
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_second_holder_is_refused_and_the_file_goes_with_the_lock(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with Hold(file, "It is taken.") as first:
        assert file.exists()
        with pytest.raises(RequestError, match=r"It is taken\."):
            Hold(file, "It is taken.")
        first.release()
        Hold(file, "It is taken.").release()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
def test_the_dead_hold_nothing_though_a_child_of_theirs_lives(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(RequestError, match="busy"):
            Hold(file, "busy")
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        Hold(file, "busy").release()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_where_there_are_no_locks_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*given: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks: make sure that no other process"):
        Hold(tmp_path / ".lock", "busy").release()
    (tmp_path / "file").touch()
    with pytest.raises(CoviewError, match="cannot be written to"):
        Hold(tmp_path / "file" / ".lock", "busy")


def test_results_of_many_evaluations_at_once_are_all_kept(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "recipe.toml").write_text("epochs = 1\n")

    def evaluate(number: int) -> None:
        for seed in range(5):
            remember(tmp_path, {"number": number, "seed": seed}, ["coview"])

    threads = [threading.Thread(target=evaluate, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = map(json.loads, (tmp_path / "evaluations.jsonl").read_text().splitlines())
    assert len({(line["number"], line["seed"]) for line in lines}) == 40
    assert {p.name for p in tmp_path.iterdir()} == {
        *("run.json", "recipe.toml", "evaluations.jsonl")
    }


def request(**where: Any) -> Request:
    from coview.recipes.configure import Changes

    given = {} if "resume" in where else {"changes": Changes(**TINY)}
    settings = {"device": "cpu", "evaluate": False, "max_steps": 2}
    return Request(method="simclr", settings=settings, **given, **where)


def test_two_runs_in_one_directory(tmp_path: Path) -> None:
    out = tmp_path / "r"
    run = start(request(out=out))
    for second in ({"out": out}, {"resume": out}):
        with pytest.raises(RequestError, match="already holds a run|is training into"):
            start(request(**second))
    (out / "run.json").rename(tmp_path / "run.json")
    (out / "recipe.toml").rename(tmp_path / "recipe.toml")
    with pytest.raises(RequestError, match=r"Another process is training into .*r\. Wait until"):
        start(request(out=out))  # before the first one has written that it is there
    for name in ("run.json", "recipe.toml"):
        (tmp_path / name).rename(out / name)
    fit(run)
    assert not (out / ".lock").exists()
    start(request(resume=out)).hold.close()


def test_what_cannot_start_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with pytest.raises(RequestError, match="batch size"):
        coview.train("simclr", out=out, batch_size=10**6, device="cpu", progress=False)
    start(request(out=out)).hold.close()


def test_runs_of_one_second_have_a_directory_each(tmp_path: Path) -> None:
    # Each has looked for the other before one of them made it.
    assert len({made(tmp_path / "runs" / "simclr-digits-now") for _ in range(3)}) == 3
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be made for the run: Not a directory"):
        made(tmp_path / "file" / "r")


def test_two_packs_in_one_directory(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(9):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    data = Folder(str(tmp_path / "images")).load(DataSettings(resident_mib=1))
    out = tmp_path / "p"

    def second(count: int) -> None:
        with pytest.raises(RequestError, match="Another process is packing into .*p"):
            pack(data, out)

    pack(data, out, told=second)
    assert {p.name for p in tmp_path.iterdir()} == {"images", "p"}
    with pytest.raises(RequestError, match="already exists"):
        pack(data, out)
