"""`dev.py` where little is installed: its own file, real environments, a nox that only answers."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOX = "import json, sys\nprint('nox got', json.dumps(sys.argv[1:]))\nsys.exit(7)\n"

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="stubs are shell scripts"),
    # find_spec would do, but setuptools then gives all of this process another distutils.
    pytest.mark.skipif(not any(metadata.distributions(name="pip")), reason="needs a pip"),
    # The environment that most tests use is made once.
    pytest.mark.xdist_group("dev"),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of a nox that prints its arguments and exits with 7."""
    folder = tmp_path_factory.mktemp("wheels")
    about = "Metadata-Version: 2.1\nName: nox\nVersion: 2099.1\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / "nox-2099.1-py3-none-any.whl", "w") as archive:
        archive.writestr("nox/__init__.py", "")
        archive.writestr("nox/__main__.py", NOX)
        archive.writestr("nox-2099.1.dist-info/METADATA", about)
        archive.writestr("nox-2099.1.dist-info/WHEEL", wheel)
        archive.writestr("nox-2099.1.dist-info/RECORD", "")
    return folder


def checkout(folder: Path) -> Path:
    """Return a folder with dev.py alone."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dev.py", folder)
    return folder


@pytest.fixture(scope="module")
def made(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkout whose environment is there, and what was said while it was made."""
    folder = checkout(tmp_path_factory.mktemp("made"))
    done = dev(folder, "demo", wheels=wheels)
    assert done.returncode == 7, done.stderr
    return folder, done.stdout


def environment(wheels: Path | None, more: Mapping[str, str]) -> dict[str, str]:
    """A path with nothing on it, and pip without a network: it finds ``wheels`` or nothing."""
    found = {"PIP_FIND_LINKS": str(wheels)} if wheels else {}
    kept = {"PATH": "/nonexistent", "HOME": "/nonexistent", "PIP_CONFIG_FILE": os.devnull}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_RETRIES": "0", **found, **more}


def dev(
    folder: Path, *arguments: str, wheels: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "dev.py", *arguments],
        cwd=folder,
        env=environment(wheels, more),
        capture_output=True,
        text=True,
        check=False,
    )


def pretending(folder: Path, code: str) -> dict[str, str]:
    """Variables that run ``code`` whenever a Python starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\n{code}\n", encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """No ensurepip, as on Debian without python3-venv; an environment is also made faster so."""
    return pretending(tmp_path / "bare", "sys.modules['ensurepip'] = None")


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def received(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return nox's arguments after the file of sessions, which is the checkout's."""
    assert done.returncode == 7, done.stderr
    first, file, *rest = json.loads(done.stdout.split("nox got ")[1])
    assert first == "--noxfile" and Path(file).name == "noxfile.py"
    return list(rest)


def test_one_line_is_said_before_the_first_run_and_none_later(made: tuple[Path, str]) -> None:
    folder, said = made
    before, _ = said.split("nox got ")
    assert len(before.splitlines()) == 1 and "6 GB" in before and "minutes" in before
    (folder / ".nox" / "shared").mkdir(exist_ok=True)
    (folder / ".nox" / "shared" / "installed").touch()
    # No wheel and no index: a second run that asked pip for anything would fail.
    again = dev(folder, "demo")
    assert received(again) == ["-s", "demo"]
    assert again.stdout.startswith("nox got") and again.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--list"]),
        (["tests", "--", "-k", "a b", "--"], ["-s", "tests", "--", "-k", "a b", "--"]),
        (["lint", "alone(moco)"], ["-s", "lint", "alone(moco)"]),
        (["--help"], ["--help"]),
    ],
)
def test_arguments_are_passed_on(
    made: tuple[Path, str], arguments: list[str], expected: list[str]
) -> None:
    assert received(dev(made[0], *arguments)) == expected


def test_a_list_of_sessions_announces_no_torch(
    wheels: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    done = dev(checkout(tmp_path / "new"), wheels=wheels, **bare)
    assert received(done) == ["--list"]
    assert "nox" in done.stdout.splitlines()[0] and "GB" not in done.stdout


def test_a_python_that_is_too_old_is_told_in_a_sentence(tmp_path: Path) -> None:
    old = pretending(tmp_path / "old", "sys.version_info = (3, 9, 2, 'final', 0)")
    done = dev(checkout(tmp_path / "new"), "demo", **old)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "coview needs Python 3.11 or newer; this is 3.9, and no newer one is on the path.\n"
    )
    assert not (tmp_path / "new" / ".nox").exists()


def test_a_newer_python_of_the_path_takes_over(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "python3.11", "exit 127")  # a name that leads nowhere, as pyenv's
    script(tmp_path / "bin" / "python3.13", 'echo "3.13 got: $@"')
    old = pretending(tmp_path / "old", "sys.version_info = (3, 9, 2, 'final', 0)")
    folder = checkout(tmp_path / "new")
    done = dev(folder, "tests", "--", "-x", **old, PATH=str(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"3.13 got: {folder / 'dev.py'} tests -- -x\n"


def test_an_old_python_can_read_the_file() -> None:
    source = (ROOT / "dev.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__ import annotations" not in source  # not known to 3.6


def test_without_ensurepip_the_systems_pip_does(
    wheels: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "new")
    assert received(dev(folder, "demo", wheels=wheels, **bare)) == ["-s", "demo"]
    assert not list(folder.glob(".nox/*/lib/*/site-packages/pip"))


def test_without_ensurepip_and_pip_the_package_is_named(wheels: Path, tmp_path: Path) -> None:
    code = "sys.modules['ensurepip'] = sys.modules['pip'] = None\nsys.executable = {!r}"
    for name, package in {"python3": "python3-venv", "python3.11": "python3.11-venv"}.items():
        link = tmp_path / name
        link.symlink_to(sys.executable)
        barer = pretending(tmp_path / f"barer-{name}", code.format(str(link)))
        done = dev(checkout(tmp_path / "new"), "demo", wheels=wheels, **barer)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.endswith(f"install it with: sudo apt install {package}\n")


def test_an_environment_without_its_stamp_is_made_anew(
    wheels: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "new")
    half = folder / ".nox" / f"nox-3.{sys.version_info.minor}"
    script(half / "bin" / "python", "echo broken")
    script(half / "bin" / "left", "")
    assert received(dev(folder, "demo", wheels=wheels, **bare)) == ["-s", "demo"]
    assert not (half / "bin" / "left").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_interrupted_in_the_installation_is_followed_by_a_whole_one(
    how: signal.Signals, wheels: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "new")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        waiting = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": index, "PIP_TIMEOUT": "60"}
        process = subprocess.Popen(
            [sys.executable, "dev.py", "demo"],
            cwd=folder,
            env=environment(None, {**bare, **waiting}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell lets its background jobs ignore Ctrl-C, and they their children.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        with process, silent.accept()[0]:  # pip asks, and hears nothing
            os.killpg(process.pid, how)
            try:
                said = process.communicate(timeout=60)[1]
            finally:
                process.kill()
    assert list(folder.glob(".nox/*/bin/python")) and not list(folder.glob(".nox/*/installed"))
    if how is signal.SIGINT:
        # pip may show a traceback of its own; dev.py has none.
        assert process.returncode == 130 and "dev.py" not in said
        assert said.endswith("Stopped. The next run begins again.\n")
    assert received(dev(folder, "demo", wheels=wheels, **bare)) == ["-s", "demo"]


def test_an_installation_that_fails_says_so_and_is_tried_again(
    wheels: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "new")
    done = dev(folder, "demo", **bare)
    assert done.returncode == 1
    assert "nox could not be installed" in done.stderr.splitlines()[-1]
    assert received(dev(folder, "demo", wheels=wheels, **bare)) == ["-s", "demo"]


def test_the_readmes_two_commands_are_those_that_are_tried() -> None:
    spec = importlib.util.spec_from_file_location("commands", ROOT / ".ci" / "commands.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.commands(readme) == ["python3 dev.py demo", "python3 dev.py tests"]
