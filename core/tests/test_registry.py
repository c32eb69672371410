"""The registry on fake distributions: listing imports nothing; faults name the package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coview.errors import PluginError, RequestError
from coview.registry import clashes, entries, find, kind_of, role_of


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


def test_finding(install) -> None:  # type: ignore[no-untyped-def]
    install("coview-fake", {"losses": "fake = fake_found:VALUE"}, "fake_found", "VALUE = 3")
    assert find("losses", "fake").load() == 3
    assert find("losses", "coview-fake:fake").package == "coview-fake"
    with pytest.raises(RequestError, match="no loss called .fkae.. Did you mean .fake."):
        find("losses", "fkae")
    with pytest.raises(RequestError, match="no loss called 'coview-other:fake'"):
        find("losses", "coview-other:fake")


def test_a_name_that_two_packages_claim(install) -> None:  # type: ignore[no-untyped-def]
    install("coview-one", {"losses": "twin = fake_twin:ONE"}, "fake_twin", "ONE, TWO = 1, 2")
    install("coview-two", {"losses": "twin = fake_twin:TWO"})
    with pytest.raises(RequestError, match="coview-one and coview-two both claim the loss 'twin'"):
        find("losses", "twin")
    assert find("losses", "coview-two:twin").load() == 2
    assert len([c for c in clashes() if "'twin'" in c]) == 1


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
    with pytest.raises(RequestError, match="Did you mean 'encoders'"):
        kind_of("encodrs")
    with pytest.raises(RequestError, match="no role called 'methods'"):
        role_of("methods")
