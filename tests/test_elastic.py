"""A process of torchrun is killed: all are started anew, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from coview import RequestError
from coview.training.elastic import restarted
from coview.training.request import Request

STEPS, SEEN, EVERY = 14, 9, 4
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ARGUMENTS = (
    *("-m", "coview", "train", "moco-v2", "--data", "digits", "--device", "cpu"),
    *("--backbone", "resnet10-quarter", "--set", "backbone.stem=7x7", "--image-size", "16"),
    *("--set", "negatives.size=100", "--batch-size", "32", "--max-steps", str(STEPS)),
    *("--log-every", "1", "--save-every", str(EVERY), "--observe", "csv", "--no-evaluate"),
)


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, *LAUNCHER, *more, *ARGUMENTS, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COVIEW_NO_REPORT": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def entries(out: Path) -> list[dict[str, object]]:
    """Return what was logged; a line that is being written is left out."""
    path = out / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def losses(out: Path) -> list[tuple[object, object]]:
    return [(entry["step"], entry["loss"]) for entry in entries(out) if "loss" in entry]


def workers(launcher: int) -> dict[int, int]:
    """Return the process of each rank, as Linux tells of torchrun's children."""
    found = {}
    listed = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in map(int, listed):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [v for v in variables if v.startswith(b"RANK=")]
        if ranks:
            found[int(ranks[0].split(b"=")[1])] = child
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happened to."""
    out = tmp_path_factory.mktemp("elastic") / "whole"
    with started(out) as process:
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    return out


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes as on Linux")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_leads_to_a_resume_with_equal_results(
    whole: Path, tmp_path: Path, rank: int
) -> None:
    out = tmp_path / "killed"
    with started(out, "--max-restarts", "2") as process:
        try:
            until = time.monotonic() + 240
            while len(losses(out)) < SEEN:
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.02)
            victims = workers(process.pid)
            os.kill(victims[rank], signal.SIGKILL)
            said = process.communicate(timeout=240)[1]
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert len(victims) == 2 and "defaults of" not in said
    before, after = (path / "backbone.safetensors" for path in (whole, out))
    assert before.read_bytes() == after.read_bytes()
    assert losses(out) == losses(whole)
    # All but the speed.
    rows = [
        [line.split(",")[:4] for line in (path / "metrics.csv").read_text().splitlines()]
        for path in (whole, out)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 1 + STEPS
    facts = json.loads((out / "run.json").read_text())
    assert facts["finished"] and "failed" not in facts


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    command = ("coview", "train", "simclr")
    return Request(
        method="simclr", out=tmp_path, command=command, settings={"download": True, "seed": 3}
    )


def begun(folder: Path, command: list[str], saved: bool) -> None:
    facts = {"command": command, "data": {"name": "digits"}, "method": "simclr"}
    (folder / "run.json").write_text(json.dumps({**facts, "seed": 0, "precision": "fp32"}))
    (folder / "recipe.toml").touch()
    (folder / "checkpoints").mkdir()
    if saved:
        (folder / "checkpoints" / "last.pt").touch()


def test_a_restart_goes_on_with_its_own_run(request_of: Request, tmp_path: Path) -> None:
    begun(tmp_path, ["coview", "train", "simclr"], saved=True)
    found = restarted(request_of)
    assert found.resume == tmp_path and found.out is None
    assert found.settings == {"download": True}


def test_the_run_of_another_command_is_left_alone(request_of: Request, tmp_path: Path) -> None:
    begun(tmp_path, ["coview", "train", "byol"], saved=True)
    assert restarted(request_of) is request_of
    assert (tmp_path / "run.json").exists()  # so that it is refused, as any taken directory


def test_what_saved_nothing_begins_anew(request_of: Request, tmp_path: Path) -> None:
    begun(tmp_path, ["coview", "train", "simclr"], saved=False)
    assert restarted(request_of) is request_of
    assert not (tmp_path / "run.json").exists() and not (tmp_path / "recipe.toml").exists()


@pytest.mark.parametrize("count", ["0", ""])
def test_the_first_start_changes_nothing(
    request_of: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    begun(tmp_path, ["coview", "train", "simclr"], saved=True)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    assert restarted(request_of) is request_of
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert restarted(request_of) is request_of


def test_a_directory_is_asked_for(request_of: Request) -> None:
    with pytest.raises(RequestError, match="add --out DIRECTORY"):
        restarted(attrs.evolve(request_of, out=None))
