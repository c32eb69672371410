"""Run the README's two commands as they stand, as on a fresh Debian 12 or Ubuntu 24.

In a clone of what is committed, with the system's own Python, an empty home directory and nothing
on the path but the system's programs. ``--list`` adds ``--list`` to each command: nox is installed
and names its sessions, and neither torch nor the sessions' work is waited for.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATH = "/usr/bin:/bin"


def commands(readme: str) -> list[str]:
    """Return the lines of code under "Two commands", without their comments."""
    section = re.search(r"^## Two commands\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    block = section and re.search(r"^```sh\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    if not block:
        sys.exit("README.md has no block of code under 'Two commands'.")
    return [line.split("#")[0].strip() for line in block[1].splitlines() if line.strip()]


def run(command: str, clone: Path, home: Path) -> None:
    """Run a command by the shell; end with its status if it fails."""
    print(f"$ {command}", flush=True)
    begin = time.monotonic()
    environment = {"HOME": str(home), "PATH": PATH}
    status = subprocess.call(["/bin/sh", "-c", command], cwd=clone, env=environment)
    print(f"status {status} after {time.monotonic() - begin:.0f} s", flush=True)
    if status != 0:
        sys.exit(status)


def installed(clone: Path) -> dict[str, int]:
    """Return when each environment of a clone was completed."""
    return {str(stamp): stamp.stat().st_mtime_ns for stamp in clone.glob(".nox/*/installed")}


def main() -> None:
    """Run both commands, then the first once more: it must find everything in place."""
    parser = argparse.ArgumentParser(description="Run the README's two commands as they stand.")
    parser.add_argument("--list", action="store_true", help="only list the sessions each time")
    parser.add_argument("--only", metavar="WORD", default="", help="commands that contain this")
    options = parser.parse_args()
    extra = " --list" if options.list else ""
    listed = commands((ROOT / "README.md").read_text("utf-8"))
    chosen = [line + extra for line in listed if options.only in line]
    if not chosen:
        sys.exit(f"None of the README's two commands contains {shlex.quote(options.only)}.")
    with tempfile.TemporaryDirectory(prefix="coview-commands-") as folder:
        clone, home = Path(folder) / "coview", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for command in chosen:
            run(command, clone, home)
        before = installed(clone)
        run(chosen[0], clone, home)
        if not before or installed(clone) != before:
            sys.exit("The last command installed again what was there.")


if __name__ == "__main__":
    main()
