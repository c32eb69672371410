"""Caches are the user's own; nothing is loaded from where another may write."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from coview import caches
from coview.caches import home_folder, keep_compiled_programs_private, own_folder, shared_part
from coview.data.sources.torchvision import CIFAR10
from coview.errors import CoviewError, RequestError
from coview.nn.compile import decide

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home directory, and no decision yet on where compiled programs are kept."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COVIEW_DATA", raising=False)
    for name in caches.COMPILED:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
    keep_compiled_programs_private.cache_clear()
    yield tmp_path / "home"  # type: ignore[misc]
    keep_compiled_programs_private.cache_clear()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_cache_is_opened_by_its_user_alone(home: Path) -> None:
    before = os.umask(0o002)
    try:
        folder = own_folder("x")
    finally:
        os.umask(before)
    assert folder == home / ".cache/coview/x" and mode(folder) == 0o700
    folder.chmod(0o755)
    assert mode(own_folder("x")) == 0o700


@pytest.mark.parametrize(
    ("permissions", "shared"), [(0o755, False), (0o777, True), (0o1777, False), (0o770, None)]
)
def test_where_others_may_write(
    home: Path, permissions: int, shared: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "a" / "b"
    folder.mkdir(parents=True)
    folder.parent.chmod(permissions)
    monkeypatch.setattr(caches, "_is_own_group", lambda group: own)
    for own in (True, False):
        found = shared_part(folder / "missing" / "x")
        is_shared = (not own) if shared is None else shared
        assert found == (folder.parent if is_shared else None)
    folder.chmod(0o1777)  # it is the folder itself where others may put files
    assert shared_part(folder) == folder


def test_a_folder_of_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    if home.stat().st_uid == 0:
        assert shared_part(home) is None  # root may write anywhere
        os.chown(home, 1234, -1)
    assert shared_part(home) == home


def test_a_cache_in_a_shared_data_folder_is_in_the_home_instead(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = home.parent / "data"
    data.mkdir()
    monkeypatch.setenv("COVIEW_DATA", str(data))
    assert own_folder("x") == data / "x"
    data.chmod(0o777)
    assert own_folder("x") == home / ".cache/coview/x"
    home.chmod(0o777)
    with pytest.raises(CoviewError, match="no place for caches: other users may write to .*home"):
        own_folder("x")


def test_compiled_programs_are_private(home: Path) -> None:
    assert decide("off", 1) == "off" and not os.environ[caches.COMPILED[0]]
    decide("views", 1)
    assert os.environ[caches.COMPILED[0]] == str(home / ".cache/coview/inductor")
    assert mode(home / ".cache/coview/inductor") == 0o700
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    assert cache_dir() == os.environ[caches.COMPILED[0]]


@pytest.mark.parametrize("name", caches.COMPILED)
def test_programs_that_others_may_write_are_not_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = home.parent / "programs"
    folder.mkdir()
    monkeypatch.setenv(name, str(folder))
    decide("views", 1)
    keep_compiled_programs_private.cache_clear()
    folder.chmod(0o777)
    with pytest.raises(RequestError, match=f"{name} is .*programs, but other users may write to"):
        decide("views", 1)


def no_such(*given: Any) -> None:
    raise KeyError("uid not found")


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_such)
    with pytest.raises(RequestError, match="no home directory .* Set the variable HOME, or COVIEW"):
        CIFAR10()
    decide("views", 1)
    made = Path(os.environ[caches.COMPILED[0]])
    assert mode(made) == 0o700 and made.name.startswith("coview-inductor-")


def test_with_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    assert home_folder() == Path("/proc/nowhere/.cache/coview")
    with pytest.raises(CoviewError, match="/proc/nowhere.* cannot be made: "):
        own_folder("x")
    with pytest.raises(RequestError, match="The data set cifar10 is not in /proc/nowhere"):
        CIFAR10()
    decide("views", 1)
    assert mode(Path(os.environ[caches.COMPILED[0]])) == 0o700
