"""Run a session of noxfile.py where nothing but Python is installed: ``python3 dev.py tests``.

``python3 dev.py X`` is ``nox -s X``, with nox in an environment of its own below ``.nox/``, made on
first use: many systems have no nox and let pip install nothing beside their own packages. This
file has to be read by the Python that is there, so it uses the standard library and the syntax of
Python 3.6 only.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = 11, 14
NOX = "nox>=2024.10.9"
# One for each version of Python, so that a new one never meets what an old one made.
HOME = ROOT / ".nox" / "nox-{}.{}".format(*sys.version_info)
PYTHON = HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# Written last: without it an environment is half made.
STAMP = HOME / "installed"
# Written by noxfile.py when the sessions' own environment is whole.
SHARED_STAMP = ROOT / ".nox" / "shared" / "installed"

NO_PYTHON = "coview needs Python 3.{} or newer; this is {}.{}, and no newer one is on the path."
NO_PIP = (
    "This Python comes without the part that makes environments (ensurepip, or pip 22.3 or newer); "
    "on Debian and Ubuntu, install it with: sudo apt install {}-venv"
)
NO_NOX = "nox could not be installed in {}; the reason is above. The next run tries again."
FIRST_NOX = "First run: installs nox in .nox/, which takes some seconds."
FIRST_ALL = (
    "First run: downloads torch and all else that coview needs into .nox/ (about 6 GB of disk, "
    "two to four minutes); later runs start at once."
)


def main(arguments: "list[str]") -> None:
    """Find a Python that is new enough, have nox, and become it."""
    if sys.version_info < (3, OLDEST):
        become([newer_python(), str(Path(__file__).resolve()), *arguments])
    announce(arguments)
    if not has_nox():
        make_environment()
    become([str(PYTHON), "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *to_nox(arguments)])


def newer_python() -> str:
    """Return a newer interpreter of the path that runs; one of pyenv's may be a mere name."""
    for minor in range(OLDEST, NEWEST + 1):
        found = shutil.which(f"python3.{minor}")
        if found and quietly([found, "-c", ""])[0] == 0:
            return found
    sys.exit(NO_PYTHON.format(OLDEST, *sys.version_info))


def to_nox(arguments: "list[str]") -> "list[str]":
    """Return nox's arguments: a list of the sessions where none is named."""
    if not arguments:
        return ["--list"]
    return arguments if arguments[0].startswith("-") else ["-s", *arguments]


def announce(arguments: "list[str]") -> None:
    """Say in a line what is about to be installed, if anything is."""
    works = bool(arguments) and not arguments[0].startswith("-")
    lists = "-l" in arguments or "--list" in arguments
    # `alone` makes an environment for each plugin, every time; nox says so itself.
    shares = works and not lists and not arguments[0].startswith("alone")
    if shares and not SHARED_STAMP.exists():
        print(FIRST_ALL, flush=True)
    elif not has_nox():
        print(FIRST_NOX, flush=True)


def has_nox() -> bool:
    """Return whether our environment is whole and has the nox that this file asks for."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == NOX


def make_environment() -> None:
    """Make it anew: what an interrupted run left is not worth mending."""
    if HOME.exists():
        shutil.rmtree(str(HOME))
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    if importlib.util.find_spec("ensurepip") is not None:
        run_or_exit([sys.executable, "-m", "venv", str(HOME)])
        pip = [str(PYTHON), "-m", "pip"]
    else:
        # Debian and Ubuntu keep ensurepip in a package of its own. The system's pip does as well.
        run_or_exit([sys.executable, "-m", "venv", "--without-pip", str(HOME)])
        if quietly([*pip, "--version"])[0] != 0:
            sys.exit(NO_PIP.format(apt_name()))
    install = [*pip, "install", "--quiet", "--disable-pip-version-check", NOX]
    if subprocess.call(install) != 0:
        sys.exit(NO_NOX.format(HOME))
    STAMP.write_text(NOX, encoding="utf-8")


def apt_name() -> str:
    """Return how Debian calls this interpreter: ``python3``, or ``python3.12`` for another one."""
    name = Path(sys.executable).name
    return name if name.startswith("python3") else "python3"


def run_or_exit(command: "list[str]") -> None:
    """Run ``python -m venv``; where there is none, say how to get it."""
    status, said = quietly(command)
    if status != 0:
        missing = "No module named venv" in said or "ensurepip is not" in said
        sys.exit(NO_PIP.format(apt_name()) if missing else said.strip())


def quietly(command: "list[str]") -> "tuple[int, str]":
    """Run a command; return its status and all that it said."""
    out, err = subprocess.PIPE, subprocess.STDOUT
    # Python 3.6 does not know `text`.
    done = subprocess.run(command, stdout=out, stderr=err, universal_newlines=True)  # noqa: UP021
    return done.returncode, done.stdout


def become(command: "list[str]") -> None:
    """Go on as another program, which then hears Ctrl-C itself; Windows can only wait for it."""
    if os.name != "nt":
        os.execv(command[0], command)
    sys.exit(subprocess.call(command))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        print("\nStopped. The next run begins again.", file=sys.stderr)
        sys.exit(130)
