"""The registry on fake distributions: listing imports nothing; faults name the package."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coview.errors import PluginError, RequestError
from coview.registry import clashes, entries, find, kind_of, kind_of_role, named, role_of


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Install a fake distribution with entry points and one module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(package: str, points: dict[str, str], module: str = "", source: str = "") -> None:
        info = tmp_path / f"{package.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        lines = [f"[coview.{group}]\n{line}\n" for group, line in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        if module:
            (tmp_path / f"{module}.py").write_text(source)

    return make


def test_listing_imports_nothing(install) -> None:  # type: ignore[no-untyped-def]
    install("coview-fake", {"losses": "fake = fake_listed:Loss"}, "fake_listed", "raise SystemExit")
    (entry,) = [e for e in entries("losses") if e.name == "fake"]
    assert (entry.package, entry.version, entry.value) == ("coview-fake", "1.2", "fake_listed:Loss")
    assert "fake_listed" not in sys.modules


def test_what_is_installed_while_the_program_runs_is_seen(install: Callable[..., None]) -> None:
    before = {e.name for e in entries("losses")}
    install("coview-late", {"losses": "late = late:Loss"})
    assert {e.name for e in entries("losses")} - before == {"late"}


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_a_folder_of_the_path_that_may_not_be_entered_has_nothing(
    install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("coview-fake", {"losses": "fake = fake:Loss"})
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.syspath_prepend(str(closed / "lib"))
    stat = Path.stat  # root may enter every folder, so the system's answer is given by hand

    def refused(path: Path, **how: bool) -> os.stat_result:
        if path.is_relative_to(closed):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", refused)
    assert [e.name for e in entries("losses") if e.package == "coview-fake"] == ["fake"]


def test_of_two_packages_of_one_name_the_first_on_the_path_counts(
    install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("coview-twice", {"losses": "twice = nearer:Loss"})
    shutil.copytree(tmp_path, tmp_path / "further")
    info = tmp_path / "further/coview_twice-1.2.dist-info"
    (info / "entry_points.txt").write_text("[coview.losses]\ntwice = further:Loss\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coview_twice\nVersion: 1.2\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "further")])
    assert [e.value for e in entries("losses") if e.name == "twice"] == ["nearer:Loss"]


def test_finding(install) -> None:  # type: ignore[no-untyped-def]
    install("coview-fake", {"losses": "fake = fake_found:VALUE"}, "fake_found", "VALUE = 3")
    assert find("losses", "fake").load() == 3
    assert find("losses", "coview-fake:fake").package == "coview-fake"
    with pytest.raises(RequestError, match="no loss called .fkae.. Did you mean .fake."):
        find("losses", "fkae")
    with pytest.raises(RequestError, match="no loss called 'coview-other:fake'"):
        find("losses", "coview-other:fake")


def test_a_name_is_found_in_any_spelling_and_its_own_first(install) -> None:  # type: ignore[no-untyped-def]
    install("coview-fake", {"losses": "loud-one = fake_spelled:ONE\nLoud_One = fake_spelled:TWO"})
    install("coview-other", {"losses": "Quiet-one = fake_spelled:ONE"})
    assert find("losses", "quiet ONE").name == "Quiet-one"
    assert find("losses", "Loud_One").value == "fake_spelled:TWO"
    with pytest.raises(RequestError, match="both claim the loss"):
        find("losses", "LOUD-ONE")


def test_a_name_that_two_packages_claim(install) -> None:  # type: ignore[no-untyped-def]
    install("coview-one", {"losses": "twin = fake_twin:ONE"}, "fake_twin", "ONE, TWO = 1, 2")
    install("coview-two", {"losses": "twin = fake_twin:TWO"})
    with pytest.raises(RequestError, match="coview-one and coview-two both claim the loss 'twin'"):
        find("losses", "twin")
    assert find("losses", "coview-two:twin").load() == 2
    install("coview-three", {"losses": "lone = fake_twin:ONE"})
    assert len([c for c in clashes() if "'twin'" in c]) == 1
    assert not [c for c in clashes() if "'lone'" in c]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('broken inside')", "RuntimeError: broken inside"),
        ("import not_a_module_at_all", "not_a_module_at_all"),
        ("", "has no attribute 'Loss'"),
    ],
)
def test_a_package_that_cannot_be_loaded(install, source: str, said: str) -> None:  # type: ignore[no-untyped-def]
    module = f"fake_broken_{len(source)}"
    install("coview-broken", {"losses": f"broken = {module}:Loss"}, module, source)
    with pytest.raises(PluginError, match="Package coview-broken 1.2 is broken") as caught:
        find("losses", "broken").load()
    assert said in str(caught.value)


def test_words_for_roles_and_kinds() -> None:
    assert kind_of("loss") == kind_of("losses") == "losses"
    assert role_of("losses") == role_of("loss") == "loss"
    assert role_of("encoders") == "encoder"
    assert kind_of("dataset") == "datasets"
    assert role_of("wrappers") == "wrap" and kind_of_role("wrap") == "wrappers"
    with pytest.raises(RequestError, match="Did you mean 'encoders'"):
        kind_of("encodrs")
    with pytest.raises(RequestError, match="no role called 'methods'"):
        role_of("methods")


def test_things_are_counted_in_words() -> None:
    assert [named("losses", count) for count in (0, 1, 2)] == ["losses", "loss", "losses"]
    assert [named("datasets", count) for count in (1, 2)] == ["data set", "data sets"]
    assert named("view_backends", 3) == "view backends"


CATALOGUE = """
class Catalogue:
    title = "the shelf"

    @staticmethod
    def find(name):
        return {"falsy": 0, "book": 7}.get(name)

    @staticmethod
    def names():
        return ["book", "falsy"]
"""


def test_what_a_catalogue_has_is_found_and_said_to_be_from_it(install) -> None:  # type: ignore[no-untyped-def]
    install(
        "coview-shelf",
        {"catalogues": "losses = fake_shelf:Catalogue\nviews = fake_shelf:missing"},
        "fake_shelf",
        CATALOGUE,
    )
    found = find("losses", "book")
    assert found.from_catalogue and found.load() == 7
    assert (found.package, found.value) == ("coview-shelf", "fake_shelf:Catalogue, book")
    assert find("losses", "falsy").load() == 0
    assert not find("targets", "shared").from_catalogue
    with pytest.raises(RequestError, match=r"neither registered nor in the shelf\. Did you mean"):
        find("losses", "bok")
    with pytest.raises(RequestError, match=r"There is no target called 'bok'\.") as error:
        find("targets", "bok")
    assert "neither" not in str(error.value)


def test_roles_and_kinds_and_the_order_of_entries(install) -> None:  # type: ignore[no-untyped-def]
    assert kind_of_role("loss") == "losses" and kind_of_role("negatives") == "negatives"
    install("coview-one", {"losses": "twin = a:b"})
    install("coview-two", {"losses": "twin = c:d"})
    both = [e for e in entries("losses") if e.name == "twin"]
    assert [e.package for e in both] == ["coview-one", "coview-two"] and both[0] < both[1]
    assert find("losses", "coview-two:twin").package == "coview-two"
    with pytest.raises(RequestError, match="Write coview-one:twin to choose one"):
        find("losses", "twin")
    assert "_point" not in repr(both[0])
