from __future__ import annotations

import os
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from coview import registry
from coview.data import sources
from coview.data.assemble import common_size, delivered_size
from coview.data.base import DataSettings
from coview.data.sources import open_source, parse_source
from coview.data.sources.arrays import Objects
from coview.data.sources.digits import Digits
from coview.data.sources.folder import Folder
from coview.data.sources.idx import Idx
from coview.data.sources.torchvision import CIFAR10
from coview.errors import RequestError

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
NAMED = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["coview.datasets"]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What pyproject.toml names is installed, and a folder is the current one."""
    found = [
        registry.Entry("datasets", name, package, "1", value, EntryPoint(name, value, "g"))
        for name, value in NAMED.items()
        for package in ("coview", *(["other"] if name == "svhn" else []))
    ]
    monkeypatch.setattr(registry, "entries", lambda kind: sorted(found))
    monkeypatch.setattr(sources, "entries", lambda kind: sorted(found))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits", ("digits", None)),
        ("digits:", ("digits", None)),
        ("cifar10", ("cifar10", None)),
        ("idx:/p/q", ("idx", "/p/q")),
        ("folder:/p", ("folder", "/p")),
        ("folder:/p:q", ("folder", "/p:q")),
        ("idx:~/p", ("idx", f"{os.path.expanduser('~')}/p")),
        ("other:svhn:/p", ("other:svhn", "/p")),
        ("coview:digits", ("coview:digits", None)),
    ],
)
def test_parse_source(text: str, expected: tuple[str, str | None]) -> None:
    assert parse_source(text) == expected


def test_a_path_alone_is_a_folder() -> None:
    for name in ("birds", "digits", "with:colon"):
        Path(name).mkdir()
    assert parse_source("birds") == ("folder", "birds")
    assert parse_source("with:colon") == ("folder", "with:colon")
    # A name comes first; a path is never taken for one.
    assert parse_source("digits") == ("digits", None)
    assert parse_source("./digits") == ("folder", "./digits")
    assert parse_source(str(Path.cwd())) == ("folder", str(Path.cwd()))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cifer10", r"no data set called 'cifer10'\. Did you mean 'cifar10'\? Choose from: cif"),
        ("digit:/p", "Did you mean 'digits'"),
        ("", "no data set called ''"),
        ("/no/such", r"^There is no folder /no/such\.$"),
        ("birds", r"^There is no folder birds and no data set called 'birds'\."),
    ],
)
def test_what_is_neither(text: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        parse_source(text)


def test_open_source(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save("a.png")
    (tmp_path / "cifar-10-batches-py").mkdir()
    for data, cls in [
        ("digits", Digits),
        (".", Folder),
        (tmp_path, Folder),
        (f"folder:{tmp_path}", Folder),
        (f"cifar10:{tmp_path}", CIFAR10),
        (torch.zeros(4, 3, 8, 8), Objects),
    ]:
        source = open_source(data)
        assert type(source) is cls and source.native_size() > 0
    assert open_source(source) is source
    Path("train-images-idx3-ubyte").touch()
    assert type(open_source(f"idx:{tmp_path}")) is Idx


def test_open_source_passes_download_on() -> None:
    assert open_source("cifar10:/nowhere", download=True).download  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="or add --download"):
        open_source("cifar10:/nowhere")


def test_open_source_with_a_name_of_two_packages() -> None:
    with pytest.raises(RequestError, match="both claim the data set 'svhn'"):
        open_source("svhn")


@pytest.mark.parametrize("name", NAMED)
def test_every_entry_point_is_a_source(name: str, tmp_path: Path) -> None:
    cls: Any = EntryPoint(name, NAMED[name], "g").load()
    assert callable(cls.native_size) and callable(cls.load)
    try:
        cls(str(tmp_path), download=False)
    except RequestError as error:
        assert str(tmp_path) in str(error)
    else:
        pytest.fail("an empty folder was taken")


@pytest.mark.parametrize(
    ("size", "native", "expected"),
    [
        (None, 28, 28),
        (None, 64, 64),
        (None, 96, 96),
        (None, 300, 256),
        (None, 256, 256),
        (40, 28, 40),
        (40, 256, 40),
    ],
)
def test_delivered_size(size: int | None, native: int, expected: int) -> None:
    assert delivered_size(DataSettings(size=size), native) == expected


@pytest.mark.parametrize(
    ("sides", "expected"), [([32, 32], 32), ([64], 64), ([32, 33], 256), ([65], 256), ([], 256)]
)
def test_common_size(sides: list[int], expected: int) -> None:
    assert common_size(sides) == expected
