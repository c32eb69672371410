"""What a contributor does, a session each: `nox -l` lists them.

torch alone is gigabytes, so the sessions share one environment: the one that
nox runs in if coview is installed there, else `.nox/shared`, made on first use
and brought up to date when a package's metadata changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/[!_]*/pyproject.toml"))
TOOLS = (
    *("pytest>=8", "pytest-xdist>=3.6", "pytest-timeout>=2.3", "hypothesis>=6.100"),
    *("ruff>=0.9", "mypy>=1.14", "hatchling>=1.26", "editables>=0.5"),
    *("matplotlib>=3.8", "nbclient>=0.10", "ipykernel>=6.29"),
)
# A worker a core, within reason: each imports torch.
WORKERS = ("-n", str(min(os.cpu_count() or 1, 8)), "--dist", "loadgroup")
# A test that waits for what never comes fails with the line it waits at, and the others go on.
PATIENCE = ("--timeout", "600", "--durations", "12")
SHARED = ROOT / ".nox" / "shared"
# There while the shared environment is made for the first time: what is interrupted is made anew.
UNFINISHED = ROOT / ".nox" / "shared-unfinished"
# What a benchmark measures beside coview; solo-learn's releases ask for a torch of 2021.
PEERS = ("lightly>=1.5",)
# Brings some seventy packages: it has an environment of its own, beside the shared one.
RIVALS = (*PEERS, "stable-pretraining>=0.1.8")
SITE = ("mkdocs-material>=9.5",)
BROWSER = "playwright>=1.40"
AXE = "axe-core@4.14"
SOLO_LEARN = "solo-learn==1.0.2"
UV = "uv>=0.5"
PUBLISHING = ("build>=1.2", "twine>=6.1")
PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
# What questions share, and those that have a session of their own.
NOT_ALONE = (
    *("__init__", "__main__", "engine", "gpu_runs", "peers", "revisions", "runner"),
    *("digits", "soak"),
)
BENCHMARKS = sorted(
    path.stem for path in ROOT.glob("benchmarks/*.py") if path.stem not in NOT_ALONE
)

nox.options.sessions = ["tests"]


def python_with_everything(session: nox.Session) -> str:
    """Return the interpreter that has coview, its plugins and the tools."""
    if importlib.util.find_spec("coview") is not None:
        return sys.executable
    binaries = SHARED / ("Scripts" if os.name == "nt" else "bin")
    python = str(binaries / "python")
    stamp = SHARED / "installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == _metadata():
        return python
    if UNFINISHED.exists() or not Path(python).exists():
        _begin_shared(session)
    # All of it in one command: a plugin's dependency on the core is met beside it.
    install = ("-m", "pip", "install", "--quiet", "-r", "requirements.txt", *TOOLS)
    session.run(python, *install, external=True)
    UNFINISHED.unlink(missing_ok=True)
    stamp.write_text(_metadata(), encoding="utf-8")
    return python


def _begin_shared(session: nox.Session) -> None:
    """Make the shared environment anew; the mark stays until everything is installed."""
    SHARED.parent.mkdir(exist_ok=True)
    UNFINISHED.touch()
    if SHARED.exists():
        shutil.rmtree(SHARED)
    # virtualenv comes with nox and brings a pip; venv has none where ensurepip is missing.
    session.run(sys.executable, "-m", "virtualenv", "--quiet", str(SHARED), external=True)


def _metadata() -> str:
    digest = hashlib.sha256()
    for path in sorted([ROOT / "requirements.txt", *ROOT.glob("*/**/pyproject.toml")]):
        if ".nox" not in path.parts:
            digest.update(path.read_bytes())
    return f"{digest.hexdigest()} {sys.version}"


def python_with_rivals(session: nox.Session, shared: str) -> str:
    """Return an interpreter that has what the shared one has, and libraries of others."""
    folder = ROOT / ".nox" / "rivals"
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    if not Path(python).exists():
        session.run(shared, "-m", "venv", str(folder), external=True)
    packages, own = (
        str(session.run(which, "-c", PACKAGES, external=True, silent=True)).strip()
        for which in (shared, python)
    )
    line = f"import site; site.addsitedir({packages!r})\n"
    (Path(own) / "shared.pth").write_text(line, encoding="utf-8")
    session.run(python, "-m", "pip", "install", "--quiet", *RIVALS, external=True)
    return python


def wheel(session: nox.Session) -> str:
    """Return solo-learn's wheel, whose package does not install beside a torch of today."""
    folder, pattern = ROOT / ".nox" / "wheels", "solo_learn-*.whl"
    if not list(folder.glob(pattern)):
        download = ("-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder))
        session.run(sys.executable, *download, SOLO_LEARN, external=True)
    return str(next(folder.glob(pattern)))


def check(session: nox.Session, python: str) -> None:
    """Ruff, and mypy in strict mode for the core."""
    session.run(python, "-m", "ruff", "check", ".", external=True)
    session.run(python, "-m", "ruff", "format", "--check", ".", external=True)
    session.run(python, "-m", "mypy", "core/src", external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Lint, types and every fast test; with arguments, pytest with those alone."""
    python = python_with_everything(session)
    if not session.posargs:
        check(session, python)
    arguments = session.posargs or (*WORKERS, *PATIENCE)
    session.run(python, "-m", "pytest", "-m", "not slow", *arguments, external=True)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """The tests that take minutes."""
    python = python_with_everything(session)
    session.run(python, "-m", "pytest", "-m", "slow", *session.posargs, external=True)


@nox.session(venv_backend="none")
def kills(session: nox.Session) -> None:
    """A hundred kills: at steps, in checkpoints, evaluations, exports, packs, at any time."""
    python = python_with_everything(session)
    arguments = ("-m", "slow", "tests/test_kill.py", *session.posargs)
    session.run(python, "-m", "pytest", *arguments, external=True)


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """Reports in a real browser, where there is a Chromium: wide, narrow, light and dark."""
    python = python_with_everything(session)
    session.run(python, "-m", "pip", "install", "--quiet", BROWSER, external=True)
    arguments = ("plugins/report/tests/test_browser.py", *session.posargs)
    variables = {"COVIEW_BROWSER": "1", "COVIEW_AXE": axe(session)}
    session.run(python, "-m", "pytest", *arguments, external=True, env=variables)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The documentation as a site, .nox/site: a warning or a broken link is an error."""
    python = python_with_everything(session)
    session.run(python, "-m", "pip", "install", "--quiet", *SITE, external=True)
    # Not --quiet: it silences the warnings that --strict counts.
    words = ("build", "--strict", *session.posargs)
    # Its makers advertise another program on stderr.
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    session.run(python, "-m", "mkdocs", *words, external=True, env=quiet)


@nox.session(venv_backend="none")
def screenshots(session: nox.Session) -> None:
    """The pages of real runs, wide, narrow, light and dark: docs/pictures/looks, in minutes."""
    docs(session)
    python = python_with_everything(session)
    needed = (BROWSER, "scikit-image>=0.22", *PEERS)
    session.run(python, "-m", "pip", "install", "--quiet", *needed, external=True)
    session.run(python, "docs/screenshots.py", *session.posargs, external=True)


def axe(session: nox.Session) -> str:
    """Return the file of axe-core, which finds what keeps people out; empty without npm."""
    folder = ROOT / ".nox" / "npm"
    file = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not file.exists() and shutil.which("npm"):
        words = ("npm", "install", "--silent", "--prefix", str(folder), AXE)
        session.run(*words, external=True)
    return str(file) if file.exists() else ""


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Two thousand mutated images, archives, packs and recipes: an answer or a sentence each."""
    python = python_with_everything(session)
    files = (
        "tests/test_fuzz_files.py",
        "tests/test_fuzz_requests.py",
        "core/tests/test_data_fuzz.py",
    )
    session.run(python, "-m", "pytest", "-m", "slow", *files, *session.posargs, external=True)


@nox.session(venv_backend="none")
def soak(session: nox.Session) -> None:
    """Twenty thousand steps: flat memory, steps no slower: benchmarks/results/soak.json."""
    python = python_with_everything(session)
    session.run(python, "-m", "benchmarks", "soak", *session.posargs, external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Ruff, and mypy in strict mode for the core."""
    check(session, python_with_everything(session))


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Two minutes of training on moving digits: a table, and a picture of before and after."""
    python = python_with_everything(session)
    session.run(python, "-m", "coview", "demo", *session.posargs, external=True)


@nox.session(venv_backend="none")
def commands(session: nox.Session) -> None:
    """The README's two commands on a bare system: `-- --list` installs nox alone."""
    session.run(sys.executable, ".ci/commands.py", *session.posargs, external=True)


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """Every sdist and wheel: built, checked, used in an empty environment; `--fresh`: all anew."""
    python = python_with_everything(session)
    session.run(python, "-m", "pip", "install", "--quiet", *PUBLISHING, external=True)
    empty = str(Path(session.bin) / "python")
    session.run(python, ".ci/release.py", "--python", empty, *session.posargs, external=True)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """The newest of each library, written into constraints.txt: what containers install."""
    session.install(UV)
    words = ("--universal", "--python-version=3.11", "--upgrade", "--no-annotate", "--no-header")
    ours = [f"--no-emit-package={name}" for name in ("coview", *(f"coview-{p}" for p in PLUGINS))]
    files = ("requirements.txt", "--no-emit-index-url", "--output-file=constraints.txt")
    session.run("uv", "pip", "compile", *words, *ours, *files)


@nox.session(default=False)
def lowest(session: nox.Session) -> None:
    """Every fast test with the oldest libraries that the packages say they work with."""
    session.install(UV)
    words = ("--resolution", "lowest-direct", "-r", "requirements.txt", *TOOLS)
    session.run("uv", "pip", "install", "--python", str(Path(session.bin) / "python"), *words)
    arguments = session.posargs or (*WORKERS, *PATIENCE)
    # What is old uses what has been deprecated since: no fault of ours.
    old = ("Deprecation", "Future", "PendingDeprecation")
    variables = {"PYTEST_ADDOPTS": " ".join(f"-W ignore::{kind}Warning" for kind in old)}
    session.run("python", "-m", "pytest", "-m", "not slow", *arguments, env=variables)


@nox.session(venv_backend="none")
def digits(session: nox.Session) -> None:
    """Measure every method on digits, five seeds each: benchmarks/results/digits.json."""
    python = python_with_everything(session)
    session.run(python, "-m", "benchmarks", "digits", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
@nox.parametrize("name", BENCHMARKS, ids=BENCHMARKS)
def benchmark(session: nox.Session, name: str) -> None:
    """Measure one thing beside its peers: benchmarks/results/NAME.json."""
    python, words = python_with_everything(session), session.posargs
    if name == "rivals":
        python = python_with_rivals(session, python)
        words = ["--solo-learn", wheel(session), *words]
    else:
        session.run(python, "-m", "pip", "install", "--quiet", *PEERS, external=True)
    session.run(python, "-m", "benchmarks", name, *words, external=True)


@nox.session(default=False)
@nox.parametrize("plugin", PLUGINS, ids=PLUGINS)
def alone(session: nox.Session, plugin: str) -> None:
    """A plugin with the packages it declares and no other: proves its dependencies."""
    packages = [f"-e./plugins/{name}" for name in _needed(plugin)]
    session.install("-e./core", *packages, *TOOLS)
    session.run("python", "-m", "pytest", f"plugins/{plugin}/tests", *session.posargs)


def _needed(plugin: str) -> list[str]:
    """Return a plugin and all it depends on, by folder."""
    project = nox.project.load_toml(ROOT / "plugins" / plugin / "pyproject.toml")["project"]
    found = {plugin}
    for requirement in project["dependencies"]:
        name = requirement.split(">")[0].strip()
        if name.startswith("coview-"):
            found |= set(_needed(name.removeprefix("coview-")))
    return sorted(found)
