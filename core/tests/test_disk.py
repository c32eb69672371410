"""A disk that is full, at any moment, and files that a disk has changed."""

from __future__ import annotations

import errno
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from coview.errors import CoviewError, RequestError
from coview.files import append_line, replacing, write_json
from coview.testing import same
from coview.training import checkpoints

pytestmark = pytest.mark.skipif(os.name == "nt", reason="limits are POSIX's")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Parts:
    """What a checkpoint is made of, small; ``step`` says which."""

    def __init__(self, step: int) -> None:
        torch.manual_seed(step)
        self.method = torch.nn.Linear(40, 30)
        self.optimizer = torch.optim.SGD(self.method.parameters(), lr=0.1, momentum=0.9)
        self.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=4.0 + step)
        self.step = step

    def save(self, path: Path) -> None:
        identity = {"seed": self.step, "recipe": ""}
        checkpoints.save(
            path,
            self.method,
            self.optimizer,
            self.scaler,
            self.step,
            identity,  # type: ignore[arg-type]
        )


def newest_step(run: Path) -> int:
    """Return the step of the newest whole checkpoint; all of its values are that step's."""
    found = checkpoints.newest(run)
    step = int(found.state["step"])
    assert same(found.state["method"], Parts(step).method.state_dict())
    return step


@pytest.mark.parametrize("size", [0, 1, 500, 3000, 5000])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, size: int) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    for step in (1, 2):
        Parts(step).save(path)
    assert path.stat().st_size > 5000
    with (
        room_for(size),
        pytest.raises(CoviewError, match=r"last.pt could not be written: File too"),
    ):
        Parts(3).save(path)
    assert newest_step(tmp_path) == 2
    assert {p.name for p in path.parent.iterdir()} == {"last.pt", "previous.pt"}


class Full:
    """Fails one call to the operating system, the number-th of all that saving makes."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, reason: int) -> None:
        self.left, self.reason, self.failed = number, reason, ""
        for name in ("fsync", "replace", "link", "open"):
            patch.setattr(os, name, self.failing(name, getattr(os, name)))
        patch.setattr(Path, "mkdir", self.failing("mkdir", Path.mkdir))
        patch.setattr(Path, "open", self.failing("Path.open", Path.open))

    def failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.failed = name
                raise OSError(self.reason, os.strerror(self.reason))
            return real(*arguments, **named)

        return call


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_whatever_call_fails_there_is_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    failed = []
    for number in range(1, 50):
        run = tmp_path / str(number)
        for step in (1, 2):
            Parts(step).save(run / "checkpoints" / "last.pt")
        with monkeypatch.context() as patch:
            full = Full(patch, number, reason)
            try:
                Parts(3).save(run / "checkpoints" / "last.pt")
            except CoviewError as error:
                assert os.strerror(reason) in str(error)
        assert newest_step(run) in (2, 3)
        assert not list(run.rglob("*.tmp"))
        if not full.failed:
            assert newest_step(run) == 3
            break
        failed.append(full.failed)
    assert {"mkdir", "Path.open", "fsync", "link", "replace", "open"} == set(failed)


def test_without_hard_links_the_one_before_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "checkpoints" / "last.pt"
    for step in (1, 2, 3):
        Parts(step).save(path)
    assert checkpoints.read(path)["step"] == 3
    assert checkpoints.read(path.with_name("previous.pt"))["step"] == 2


def test_libraries_errors_are_the_disk_s(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with (
        room_for(100),
        pytest.raises(CoviewError, match=r"w.safetensors could not be written: File"),
        replacing(tmp_path / "w.safetensors") as temporary,
    ):
        save_file({"a": torch.zeros(1000)}, temporary)
    with pytest.raises(ValueError, match="of another kind"), replacing(tmp_path / "x"):
        raise ValueError("of another kind")
    assert not list(tmp_path.iterdir())


def test_a_line_and_a_document_that_do_not_fit(tmp_path: Path) -> None:
    full = tmp_path / "metrics.jsonl"
    full.symlink_to("/dev/full")
    with pytest.raises(CoviewError, match="metrics.jsonl could not be written: No space left"):
        append_line(full, "{}")
    with room_for(10), pytest.raises(CoviewError, match="run.json could not be written"):
        write_json(tmp_path / "run.json", {"a": "long" * 10})
    assert not (tmp_path / "run.json").exists()


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    Parts(1).save(path)
    whole, state = path.read_bytes(), checkpoints.read(path)
    chance = random.Random(0)
    noticed = 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            again = checkpoints.read(path)
        except CoviewError as error:
            assert "a.pt is damaged" in str(error)
            noticed += 1
        else:
            assert same(again, state)  # a bit between the parts, which nobody reads
    assert noticed > 90
    for _ in range(30):
        path.write_bytes(whole[: chance.randrange(len(whole))])
        with pytest.raises(CoviewError, match="a.pt is damaged"):
            checkpoints.read(path)


def test_without_the_one_before_an_epoch_s_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step, name in ((1, "epoch-0009.pt"), (2, "epoch-0010.pt"), (3, "last.pt")):
        Parts(step).save(folder / name)
    assert newest_step(tmp_path) == 3
    (folder / "last.pt").write_bytes(b"")
    assert newest_step(tmp_path) == 2
    (folder / "epoch-0010.pt").write_bytes(b"")
    found = checkpoints.newest(tmp_path)
    assert found.state["step"] == 1 and len(found.damaged) == 2
    (folder / "epoch-0009.pt").write_bytes(b"")
    with pytest.raises(CoviewError, match=r"last.pt is damaged.*epoch-0009.pt is damaged"):
        checkpoints.newest(tmp_path)


def test_without_any_checkpoint_the_missing_file_is_named(tmp_path: Path) -> None:
    there_is_none = r"There is no checkpoint at .*checkpoints/last\.pt"
    with pytest.raises(RequestError, match=there_is_none):
        checkpoints.newest(tmp_path)
    with pytest.raises(RequestError, match=there_is_none):
        checkpoints.read(tmp_path / "checkpoints" / "last.pt")


def test_the_states_of_the_scaler_and_of_torch_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    Parts(3).save(path)
    following = torch.rand(9)
    other = Parts(1)
    checkpoints.restore(
        checkpoints.read(path),
        other.method,
        other.optimizer,
        other.scaler,  # type: ignore[arg-type]
    )
    assert other.scaler.get_scale() == 7.0
    assert torch.equal(torch.rand(9), following)


def test_a_changed_recipe_keeps_its_rates_or_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    saved = Parts(3)
    saved.method(torch.ones(1, 40)).sum().backward()
    saved.optimizer.step()
    saved.save(path)
    state = checkpoints.read(path)

    def restored(parts: Any, *changed: str) -> list[str]:
        return checkpoints.restore(
            state, parts.method, parts.optimizer, parts.scaler, changed, path
        )

    wider = Parts(1)
    wider.method = torch.nn.Linear(40, 31)
    with pytest.raises(CoviewError, match="a.pt is damaged: method does not fit: .*size mismatch"):
        restored(wider)
    with pytest.raises(RequestError, match=r"does not fit the changed recipe \(a\.b, c\): "):
        restored(wider, "c", "a.b")

    # The momentum is the saved one; the rate is the saved one only if the recipe is too.
    for changed, rate in (((), 0.1), (("optimizer.lr",), 0.5)):
        other = Parts(1)
        other.optimizer.param_groups[0]["lr"] = 0.5
        assert restored(other, *changed) == []
        assert other.optimizer.param_groups[0]["lr"] == rate
        assert same(other.optimizer.state_dict()["state"], state["optimizer"]["state"])
        assert same(other.method.state_dict(), saved.method.state_dict())

    anew = ["The optimiser starts anew: the saved state does not fit it."]
    other = Parts(1)
    assert restored(other, "optimizer.use") == anew and not other.optimizer.state
    other.optimizer = torch.optim.SGD([{"params": p} for p in other.method.parameters()], lr=0.1)
    assert restored(other, "decay") == anew
    with pytest.raises(CoviewError, match="a.pt is damaged: optimizer does not fit"):
        restored(other)
