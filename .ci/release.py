"""Build every distribution, and use them where the repository is not: ``nox -s release``.

The session gives an empty environment. Packages of others are linked into it from the environment
that runs this file; with ``--fresh`` they are installed from the registry, which takes minutes and
6 GB. Ours are installed from the wheels alone. ``--build`` ends after the checks of the files.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.metadata import Metadata
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [
    ROOT / "core",
    *sorted(path.parent for path in ROOT.glob("plugins/[!_]*/pyproject.toml")),
]
MOCO_V2 = {f"coview{end}" for end in ("", "-moco-v2", "-moco", "-simclr", "-instdisc", "-cpc")}
"""What ``pip install coview-moco-v2`` brings of ours, and nothing else."""

SMALL = "--data digits --preset tiny --batch-size 64"
SHORT = "--max-steps 2 --no-evaluate --no-compile --no-report --device cpu"
TOOLS = ("pytest>=8", "hatchling", "editables")
"""What the tutorial's reader has beside coview."""

FILE = re.compile(r"^`([\w./-]+)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^coview (?:train|check) .*$", re.MULTILINE)
HUB = (
    "test_push.py::test_weights_go_there_and_timm_loads_them",
    "test_source.py::test_a_run_trains_on_it_and_goes_on_to_the_same_end",
)
"""A local data set is trained on; weights go to a stand-in for the Hub, and timm loads them."""


def run(*words: str | Path, **options: Any) -> str:
    """Run a command, show it with its time, and return its output; end if it fails."""
    begin = time.monotonic()
    print(f"$ {textwrap.shorten(shlex.join(map(str, words)), 160)}", flush=True)
    done = subprocess.run(
        [*map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nstatus {done.returncode}: {shlex.join(map(str, words))}")
    print(f"  {time.monotonic() - begin:.1f} s", flush=True)
    return done.stdout


def expect(found: object, wanted: object, what: str) -> None:
    """End with a sentence unless both are equal."""
    if found != wanted:
        sys.exit(f"{what}: found {found!r}, expected {wanted!r}.")


class Package:
    """A folder of the repository that is one distribution.

    Attributes:
        folder: where its pyproject.toml is.
        project: the table of that name in it.
        name: of the distribution.
    """

    def __init__(self, folder: Path) -> None:
        """Read the folder's pyproject.toml."""
        self.folder = folder
        self.project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        self.name: str = self.project["name"]

    @cached_property
    def tracked(self) -> set[str]:
        """Its files that git knows, relative to its folder."""
        listed = subprocess.check_output(["git", "ls-files"], cwd=self.folder, text=True)
        return set(listed.splitlines())

    def build(self, out: Path) -> None:
        """Build the sdist, and the wheel from that sdist."""
        words = ("--no-isolation", "--outdir", out, self.folder)
        run(sys.executable, "-m", "build", *words)

    def check(self, out: Path, version: str) -> Metadata:
        """Compare both files with the folder; return the wheel's metadata."""
        stem = f"{self.name.replace('-', '_')}-{version}"
        with tarfile.open(out / f"{stem}.tar.gz") as archive:
            names = {name.removeprefix(f"{stem}/") for name in archive.getnames()}
        expect(sorted(self.tracked - names), [], f"{stem}.tar.gz lacks files")
        with zipfile.ZipFile(out / f"{stem}-py3-none-any.whl") as wheel:
            inside = set(wheel.namelist())
            about = Metadata.from_email(wheel.read(f"{stem}.dist-info/METADATA"), validate=True)
            licence = wheel.read(f"{stem}.dist-info/licenses/LICENSE").decode()
        code = {name.removeprefix("src/") for name in self.tracked if name.startswith("src/")}
        outside = {name for name in inside if not name.startswith(f"{stem}.dist-info/")}
        expect(sorted(outside ^ code), [], f"{stem}: wheel and src/ differ")
        expect(licence, (ROOT / "LICENSE").read_text("utf-8"), f"{self.name}'s licence")
        expect(about.license_expression, "MIT", f"{self.name}'s licence expression")
        expect(str(about.version), version, f"{self.name}'s version")
        expect(about.name, self.name, "name")
        return about

    def method(self) -> str | None:
        """Return the first of its methods, if it has any."""
        return next(iter(self.project["entry-points"].get("coview.methods", ())), None)


def others(metadata: Sequence[Metadata]) -> Iterator[Requirement]:
    """Yield what packages need that is not ours, without extras."""
    for about in metadata:
        for needed in about.requires_dist or ():
            optional = needed.marker and "extra" in str(needed.marker)
            if not optional and not needed.name.startswith("coview"):
                yield needed


class Reader:
    """Someone with the wheels and an empty environment, in a folder away from the repository.

    Attributes:
        python: the environment's interpreter.
        home: an empty home directory, in which everything is run.
        wheels: the folder with our distributions.
    """

    def __init__(self, python: Path, home: Path, wheels: Path) -> None:
        """Take an environment that has pip and nothing else."""
        self.python, self.home, self.wheels = python, home, wheels
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        path = f"{python.parent}{os.pathsep}{os.defpath}"
        self.environment = {**kept, "HOME": str(home), "PATH": path, "PYTHONNOUSERSITE": "1"}

    def run(self, *words: str | Path) -> str:
        """Run a command in the home directory; return its output."""
        return run(*words, cwd=self.home, env=self.environment)

    def coview(self, line: str) -> str:
        """Run a line of coview, with its arguments as in a shell."""
        return self.run(self.python, "-m", "coview", *shlex.split(line))

    def pip(self, *words: str | Path) -> None:
        """Run pip in the environment."""
        self.run(self.python, "-m", "pip", "--disable-pip-version-check", *words)

    def install(self, *words: str | Path) -> None:
        """Install ours from the wheels alone; what is of others must be there."""
        self.pip("install", "--no-index", "--find-links", self.wheels, *words)

    def answer(self, code: str) -> list[str]:
        """Return the lines that Python prints."""
        return self.run(self.python, "-c", code).splitlines()

    def ours(self) -> set[str]:
        """Return the names of our distributions that are installed."""
        code = "from importlib.metadata import distributions as d\n"
        code += "print(*{e.name for e in d() if e.name.startswith('coview')}, sep='\\n')"
        return {name for name in self.answer(code) if name}

    def link_others(self, places: Sequence[Path]) -> None:
        """Make packages of other environments importable, without those of ours."""
        # By this name, because dill asks for it before it takes a class for an installed one.
        linked = self.home.parent / "others" / "site-packages"
        linked.mkdir(parents=True)
        for place in places:
            for entry in sorted(place.iterdir()):
                ours = entry.name.startswith(("coview", "_editable_impl_coview"))
                if not (ours or entry.suffix == ".pth" or (linked / entry.name).is_symlink()):
                    (linked / entry.name).symlink_to(entry)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        (Path(self.answer(code)[0]) / "others.pth").write_text(f"{linked}\n", "utf-8")


def places() -> list[Path]:
    """Return the folders of installed packages that this interpreter sees."""
    return [Path(place) for place in sys.path if Path(place).name == "site-packages"]


def one(reader: Reader, packages: Sequence[Package]) -> None:
    """One package brought what it takes parts from, nothing else of ours, and works."""
    where = reader.answer("import coview; print(coview.__file__)")[0]
    expect(Path(where).is_relative_to(reader.python.parent.parent), True, f"coview is {where}")
    reader.coview("doctor")
    reader.coview(f"train moco-v2 {SMALL} {SHORT} --out first")


def trains(reader: Reader, packages: Sequence[Package]) -> None:
    """All packages load, the demo runs, and a method of each trains."""
    reader.pip("check")
    doctor = reader.coview("doctor")
    expect(doctor.splitlines()[-1], "no problems found", "coview doctor")
    reader.coview("demo --epochs 1 --device cpu --out demo")
    made = {"report.html", "neighbours.png", "backbone.safetensors"}
    expect(made - {path.name for path in (reader.home / "demo").iterdir()}, set(), "demo lacks")
    for method in filter(None, (package.method() for package in packages)):
        reader.coview(f"train {method} {SMALL} {SHORT} --out runs/{method}")


def tutorial(reader: Reader, packages: Sequence[Package]) -> None:
    """The authors' tutorial: its package is written, installed, tested, checked and trained."""
    page = (ROOT / "docs" / "authors" / "tutorial.md").read_text("utf-8")
    reader.coview("new my-vicreg --kind loss")
    folder = reader.home / "coview-my-vicreg"
    for place, text in FILE.findall(page):
        (folder / place).write_text(text, "utf-8")
    reader.install("--no-build-isolation", "--editable", folder)
    reader.run(reader.python, "-m", "pytest", "-q", folder / "tests")
    for line in COMMAND.findall(page)[1:]:  # the first is about what `coview new` wrote
        words = line.removeprefix("coview ")
        reader.coview(f"{words} {'--fast' if words.startswith('check') else SHORT}")


def hub(reader: Reader, packages: Sequence[Package]) -> None:
    """Tests that come with the Hub's package: a local data set, a stand-in for the Hub, timm."""
    sdist = next(reader.wheels.glob("coview_hub-*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(reader.home, filter="data")
    tests = reader.home / sdist.name.removesuffix(".tar.gz") / "tests"
    names = [tests / name for name in HUB]
    reader.run(reader.python, "-m", "pytest", "-q", "--import-mode=importlib", *names)


USES = {use.__name__: use for use in (one, trains, tutorial, hub)}


def build(out: Path) -> tuple[list[Package], list[Metadata]]:
    """Build and check all distributions; return them with their wheels' metadata."""
    shutil.rmtree(out, ignore_errors=True)
    packages = [Package(folder) for folder in FOLDERS]
    for package in packages:
        package.build(out)
    version = packages[0].project["version"]
    metadata = [package.check(out, version) for package in packages]
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(out.iterdir()))
    return packages, metadata


def main() -> None:
    """Build, check, install and use."""
    parser = argparse.ArgumentParser(description="Build every distribution and use the wheels.")
    parser.add_argument("--python", type=Path, metavar="FILE", help="of an empty environment")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the files")
    parser.add_argument("--build", action="store_true", help="only build and check the files")
    parser.add_argument("--fresh", action="store_true", help="install others' packages too")
    parser.add_argument("--only", choices=USES, help="one way to use them")
    options = parser.parse_args()
    uses = [options.only] if options.only else list(USES)
    begin = time.monotonic()
    packages, metadata = build(options.out.resolve())
    if options.build:
        return
    with tempfile.TemporaryDirectory(prefix="coview-release-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        reader = Reader(options.python, home, options.out.resolve())
        expect(reader.ours(), set(), "the environment is not empty")
        if options.fresh:
            reader.pip("install", *sorted({*map(str, others(metadata)), *TOOLS}))
        else:
            reader.link_others(places())
        reader.install("coview-moco-v2")
        expect(reader.ours(), MOCO_V2, "pip install coview-moco-v2")
        if "one" in uses:
            one(reader, packages)
        reader.install("coview[all]")
        expect(reader.ours(), {p.name for p in packages}, "pip install coview[all]")
        for name in [use for use in uses if use != "one"]:
            USES[name](reader, packages)
    print(f"{len(packages)} packages, used from wheels: {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
