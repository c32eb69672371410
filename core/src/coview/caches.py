"""Caches in folders of the user's own: nothing is read from where another user may write.

torch keeps the programs that it compiles in a folder below ``/tmp`` whose name anyone can
guess, and runs what it finds there. coview gives it, and its own caches, folders below
``~/.cache/coview`` that only their user may open.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from coview.errors import CoviewError, RequestError

COMPILED = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Variables that name the folders of compiled programs."""


def home_folder() -> Path:
    """Return ``~/.cache/coview``, which need not exist.

    Raises:
        RequestError: this user has no home directory.
    """
    try:
        return Path("~/.cache/coview").expanduser()
    except RuntimeError:
        raise RequestError(
            "This user has no home directory to keep files in. Set the variable HOME, or "
            "COVIEW_DATA for data sets."
        ) from None


def own_folder(name: str) -> Path:
    """Return a folder of caches that only this user may open, made if it is missing.

    It is in ``$COVIEW_DATA`` or, where others may write to that, in ``~/.cache/coview``.

    Raises:
        CoviewError: there is no home directory, it cannot be written to, or other users may
            write there.
    """
    if data := os.environ.get("COVIEW_DATA"):
        with suppress(CoviewError):
            return _made_private(Path(data).expanduser() / name)
    return _made_private(home_folder() / name)


def _made_private(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise CoviewError(f"{folder} cannot be made: {error.strerror}.") from error
    if (shared := shared_part(folder)) is not None:
        raise CoviewError(f"{folder} is no place for caches: other users may write to {shared}.")
    return folder


@functools.cache
def keep_compiled_programs_private() -> None:
    """Let torch keep compiled programs where only this user may write.

    Raises:
        RequestError: a variable names a folder where others may write.
    """
    given = {name: os.environ[name] for name in COMPILED if os.environ.get(name)}
    for name, folder in given.items():
        if (shared := shared_part(Path(folder))) is not None:
            raise RequestError(
                f"{name} is {folder}, but other users may write to {shared}, and compiled programs "
                "would be run from there. Name a folder of your own (mode 0700), or unset it."
            )
    if COMPILED[0] not in given:
        os.environ[COMPILED[0]] = str(_folder_for_programs())


def _folder_for_programs() -> Path:
    try:
        return own_folder("inductor")
    except CoviewError:  # for this process alone, then
        folder = tempfile.mkdtemp(prefix="coview-inductor-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def shared_part(path: Path) -> Path | None:
    """Return a folder on the way to ``path``, or itself, where another user may write.

    What is missing is passed over. In a sticky folder, such as ``/tmp``, others may write,
    but cannot replace what is there.
    """
    if os.name == "nt":
        return None  # a user's folders there are the user's by default
    whole = path.absolute().resolve()
    below: Path | None = None
    for folder in (whole, *whole.parents):
        try:
            status = folder.stat()
        except OSError:
            continue
        sticky = bool(status.st_mode & stat.S_ISVTX) and below is not None
        if status.st_uid not in (0, os.geteuid()) or (_others_write(status) and not sticky):
            return folder
        below = folder
    return None


def _others_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(status.st_gid)


def _is_own_group(group: int) -> bool:
    """Whether a group is root's, or this user's own, as many systems make one for each user."""
    import grp
    import pwd

    try:
        return group == 0 or grp.getgrgid(group).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
