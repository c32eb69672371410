"""What is compiled, when, and that it changes nothing but time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coview
from coview.errors import RequestError
from coview.nn import compile as compiling
from coview.nn.compile import compilable, compiled, has_compiler

SMALL: dict[str, Any] = {
    "data": "digits",
    "backbone": "resnet10-quarter",
    "batch_size": 16,
    "epochs": 1,
    "max_steps": 3,
    "log_every": 1,
    "evaluate": False,
    "progress": False,
}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was given to torch to compile; it is run as it is written."""
    names: list[str] = []

    def compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        names.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    # What is made here must not be what other tests of this process run.
    monkeypatch.setattr(compiling, "_MADE", {})
    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **options: names.append(type(module).__name__)
    )
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    return names


def test_a_function_is_compiled_once_and_only_where_it_is_asked_for(taken: list[str]) -> None:
    @compilable()
    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    one = torch.ones(1)
    doubled(one)
    with compiled(False):
        doubled(one)
    assert taken == []
    with compiled():
        assert compiling.compiling()
        assert doubled(one) == 2
        with compiled(None):  # as outside
            doubled(one)
        with compiled(False):
            assert not compiling.compiling()
    assert taken == ["doubled"]
    assert not compiling.compiling()


def test_compiling_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), compiled():
        _ = 1 / 0
    assert not compiling.compiling()


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_a_run_that_compiles_takes_networks_views_and_loss(
    method: str, taken: list[str], tmp_path: Path
) -> None:
    plain = coview.train(method, out=tmp_path / "plain", **SMALL)
    assert taken == []
    run = coview.train(method, out=tmp_path / "compiled", compile=True, **SMALL)
    loss = {"simclr": "_summed", "byol": "_loss"}[method]
    assert {"ResNet", "Sequential", "prepared_from", loss} <= set(taken)
    heads = taken.count("Sequential")
    assert heads == {"simclr": 1, "byol": 3}[method]  # BYOL: two of its own, one of its target
    # Blur is written another way for a compiler.
    expected = [m["loss"] for m in plain.metrics]
    assert [m["loss"] for m in run.metrics] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "there, named, expected",
    [({"g++"}, None, True), ({"c++", "clang++"}, None, False), ({"g++-13"}, "g++-13", True)],
)
def test_the_compiler_is_the_one_that_torch_looks_for(
    there: set[str], named: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling.sys, "platform", "linux")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CXX", raising=False)
    if named:
        monkeypatch.setenv("CXX", named)
    assert has_compiler() is expected


def test_triton_alone_does_not_compile_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"g++"}
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name if name in found else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    monkeypatch.setenv("CXX", "g++")
    monkeypatch.delenv("CC", raising=False)
    assert not has_compiler()
    found.add("gcc")
    assert has_compiler()


def test_without_a_compiler_a_run_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    with pytest.raises(RequestError, match=r"--compile needs a C\+\+ compiler"):
        coview.train("simclr", out=tmp_path / "run", compile=True, **SMALL)


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method",
    ["simclr", "moco", "moco-v2", "byol", "simsiam", "swav", "dino", "moco-v3", "cpc-v2", "cmc"],
)
def test_a_compiled_run_learns_the_same(method: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    losses = [
        [
            m["loss"]
            for m in coview.train(method, out=tmp_path / str(on), compile=on, **SMALL).metrics
        ]
        for on in (False, True)
    ]
    # Rounding grows with every step that is taken on other weights.
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4, abs=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2, abs=1e-4)
