"""Files are replaced whole, or not at all; checkpoints hold data only."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coview.errors import CoviewError, RequestError
from coview.files import replacing, sweep, write_json
from coview.training.checkpoints import read


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(CoviewError, match="No space left"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("explicit", [True, False])
def test_a_full_disk_that_a_library_s_own_error_hides(tmp_path: Path, explicit: bool) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(CoviewError, match="No space left"), replacing(tmp_path / "a"):
        try:
            raise full
        except OSError as error:
            hiding = ValueError("cannot serialise")
            if explicit:
                raise hiding from error
            raise hiding  # noqa: B904


def test_only_what_is_half_written_is_swept(tmp_path: Path) -> None:
    for name in (".a.json.7.tmp", "a.json", ".hidden", "b.tmp"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", ".hidden", "b.tmp"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CoviewError, match="could not be written"):
        write_json(tmp_path / "file" / "a.json", 1)


class Payload:
    """Executes when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, (f"touch {self.mark}",)


def test_a_checkpoint_that_would_execute_code_does_not(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "last.pt"
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(CoviewError, match="damaged, or not a coview checkpoint"):
        read(path)
    torch.save({"format": 1, "x": Payload(mark)}, path)
    with pytest.raises(CoviewError, match="damaged, or not a coview checkpoint"):
        read(path)
    assert not mark.exists()


def test_missing_damaged_and_foreign_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no checkpoint"):
        read(tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(CoviewError, match="damaged"):
        read(tmp_path / "cut.pt")
    torch.save({"format": 0}, tmp_path / "old.pt")
    with pytest.raises(CoviewError, match="this version"):
        read(tmp_path / "old.pt")
    # All versions so far wrote this number.
    torch.save({"format": 1, "step": 3}, tmp_path / "good.pt")
    assert read(tmp_path / "good.pt")["step"] == 3


def test_a_file_is_flushed_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut would leave an empty file under the name of a whole one."""
    path, done = tmp_path / "a.json", []
    write_json(path, 1)

    def noted(name: str, about: Callable[..., object]) -> None:
        real = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            done.append((name, about(*given)))
            return real(*given, **named)

        monkeypatch.setattr(os, name, call)

    def inode(number: int) -> int:
        return os.fstat(number).st_ino

    noted("fsync", inode)
    noted("close", inode)
    noted("replace", lambda source, target: Path(source).stat().st_ino)
    write_json(path, 2)
    new, folder = path.stat().st_ino, tmp_path.stat().st_ino
    done = [call for call in done if call != ("close", new)]
    assert done == [("fsync", new), ("replace", new), ("fsync", folder), ("close", folder)]


def test_a_library_that_hides_what_it_writes_does_not_hide_the_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "a") as temporary:
        temporary.chmod(0o600)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode
