"""glibc keeps freed memory once fused views are made, unless the user's variables decide."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch, coview
if sys.argv[1] == "views":
    batch = coview.Batch(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4))
    views = coview.component("views", "simclr", plan=coview.Plan(image_size=32))
    views.generate_views(batch, coview.Step(component="views"))
for _ in range(10):  # the heap settles
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)  # 64 MiB, more than glibc ever keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **variables: str) -> int:
    """Return how many pages twenty tensors of 64 MiB are fetched from the system for."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, what],
        env={**plain, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_is_kept_after_views_were_made() -> None:
    without, kept = faults("nothing"), faults("views")
    assert without > 100 and kept < without / 10, (without, kept)
    assert faults("views", MALLOC_MMAP_MAX_="65536") > 100
