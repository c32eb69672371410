"""Locks on folders and files: one process at a time, and none that is dead.

The operating system takes such a lock away from a process that ends, however it ends, and no
child process keeps it. It holds between machines where the file system passes locks on, as
NFS, Lustre and GPFS do unless they are mounted without; where it does not, that is said.
"""

from __future__ import annotations

import errno
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from coview.errors import CoviewError, RequestError

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What the operating system answers where there are no locks."""


class Hold:
    """A lock that this process holds until :meth:`release`, or its own end.

    Where the file system has no locks, a warning says so and nothing is locked.
    """

    def __init__(self, file: Path, busy: str, wait: float = 0.0) -> None:
        """Take the lock.

        Args:
            file: the lock's own file; it is there while the lock is held.
            busy: what to say if another process holds it.
            wait: seconds to wait for another process.

        Raises:
            RequestError: another process holds it.
            CoviewError: the file cannot be written.
        """
        self.file = file
        # Another thread, or another run in this process, is another holder too.
        self._lock = FileLock(file, timeout=wait, thread_local=False)
        try:
            self._lock.acquire(poll_interval=0.05)
        except Timeout:
            raise RequestError(busy) from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
                reason = error.strerror or error
                raise CoviewError(f"{file.parent} cannot be written to: {reason}.") from error
            warnings.warn(
                f"The file system of {file.parent} has no locks: make sure that no other process "
                "writes there.",
                stacklevel=2,
            )

    def release(self) -> None:
        """Give the lock back; doing so twice is allowed."""
        if self._lock.is_locked:
            with suppress(OSError):
                self.file.unlink()
            self._lock.release(force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.release()


def is_held(file: Path) -> bool:
    """Return whether another process, or another part of this one, holds a lock.

    A file that a killed process left behind is not held. Where the file system has no locks,
    or the file may not be opened, nobody can tell, and the answer is no.
    """
    if not file.is_file():
        return False
    lock = FileLock(file, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False
    lock.release()
    return False
