"""Memory that is freed stays with the process, so that the next batch need not fetch it again.

glibc gives large blocks back to the system when they are freed. The next batch gets them
page by page, which costs more than computing its views.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Numbers of glibc's ``mallopt``: bytes at the end that are kept; blocks outside the heap."""
LARGE = 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep what is freed; return whether it does so from now on.

    Nothing is done elsewhere than on glibc, or where the user's own ``MALLOC_`` variables or
    ``GLIBC_TUNABLES`` say what to do.
    """
    own = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if own or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, LARGE))
