r"""What people read: names that cannot command a terminal, and output that may go nowhere.

Names of files and classes come from strangers. A terminal obeys control characters, and marks
of writing direction let a text read as another one; so both are shown as ``\x1b``, ``\u202e``.

A terminal may be closed, and ``| head`` stops reading, hours before the work is done: the
output is then lost, the work goes on.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's controls, formats, surrogates (of names that are no text), line and paragraph ends."""
JOINERS = "\u200c\u200d"
"""Formats that some scripts are not written without, and that do nothing else."""
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""What the operating system answers when nobody can read any more."""


def shown(text: object, keep: str = "") -> str:
    r"""Return a text with what must not reach a terminal as escapes.

    Args:
        text: a name, say; anything else is written as text first.
        keep: characters to leave as they are.

    >>> shown("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return "".join(c if c in keep else _escape(c) for c in str(text))


def _escape(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN or character in JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")


class Output:
    """A text stream that survives the loss of its reader.

    Attributes:
        controls: the same stream for those who draw: it passes control characters on.
        failed: the first error that was not the loss of a reader, such as a full disk.
    """

    def __init__(self, stream: Any, escapes: bool = False) -> None:
        """Wrap ``stream``; ``escapes``: show control characters but line ends and tabs."""
        self._stream, self._escapes = stream, escapes
        self.controls: Output = Output(stream) if escapes else self
        self.failed: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        if self._escapes:
            # A progress bar goes back to the start of its line before it writes.
            head = "\r" if text.startswith("\r") else ""
            text = head + shown(text[len(head) :], keep="\n\t")
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or lose what was not written."""
        self._try(self._stream.flush)

    def _try(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            if error.errno not in GONE:
                self.failed = self.failed or error
            _to_nowhere(self._stream)
        except ValueError:
            if not getattr(self._stream, "closed", False):
                raise


def _to_nowhere(stream: Any) -> None:
    """Let a stream's file be the null device, also for what it still has to write."""
    with suppress(OSError, ValueError, io.UnsupportedOperation, AttributeError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


@contextmanager
def lasting(escapes: bool = False) -> Iterator[None]:
    """Let standard output and error lose their readers inside the block.

    Args:
        escapes: show control characters as escapes there.
    """
    before = sys.stdout, sys.stderr
    opened = _fill_gaps()
    if not isinstance(sys.stdout, Output):
        sys.stdout = cast(TextIO, Output(sys.stdout, escapes))
    if not isinstance(sys.stderr, Output):
        sys.stderr = cast(TextIO, Output(sys.stderr, escapes))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for file in opened:
            file.close()


def controls(stream: Any) -> Any:
    """Return the stream to draw on, for bars and colours."""
    return stream.controls if isinstance(stream, Output) else stream


def _fill_gaps() -> list[TextIO]:
    """Open the null device where a program was started without standard output or error.

    The next file to be opened would otherwise have their number, and be written into. The
    numbers stay taken; returns the files that do not.
    """
    opened: list[TextIO] = []
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_WRONLY)
        # The lowest free number is given: any other means that this one is taken.
        file = os.fdopen(nowhere, "w", encoding="utf-8", closefd=nowhere != number)
        setattr(sys, name, file)
        opened += [file] if nowhere != number else []
    return opened
