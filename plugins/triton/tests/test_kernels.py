"""The kernels paint what the fused chain paints, and compile for GPUs that are not here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import coview
from coview.errors import RequestError
from coview.views import Augmentation, CropViews

triton = pytest.importorskip("triton", reason="Triton is made for Linux alone")


def test_kernels_paint_what_the_fused_chain_paints() -> None:
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-header"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("cases.py"))],
        env={**os.environ, **interpreted},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= 20 and "skipped" not in done.stdout


POINTERS = {"taps": "*fp32", "table": "*fp32", "fixed": "*fp32", "sums": "*fp32"}
REALS = dict.fromkeys(("unit_of", "before", "after"), "fp32")
PAINT = {"CORNERS": False, "PILLOW": False, "COLUMNS": 14}
READINGS = [(0, "*fp32", 0), (2, "*u8", 0), (4, "*fp32", 0), (10, "*fp32", 11), (11, "*fp32", 3)]


@pytest.fixture(autouse=True)
def nothing_is_compiled_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_a_pass_compiles_without_a_gpu(reading: tuple[int, str, int]) -> None:
    from coview_triton import kernels

    how, source, reach = reading
    constants = {**PAINT, "READ": how, "REACH": reach, "CHANNELS": 3, "BLOCK": 1024}
    flags = dict.fromkeys(("JITTER", "GREY", "SOLARIZE", "STANDARDIZE", "CLAMP"), True)
    colours = {**constants, **flags, "BLOCKS": 49}
    types = {**POINTERS, **REALS, "source": source, "out": "*bf16"}
    assert compiled(kernels.paint, types, colours, 90)
    assert compiled(kernels.means, types, constants, 90)


@pytest.mark.parametrize("capability", [80, 90])
def test_one_program_and_resizing_compile_without_a_gpu(capability: int) -> None:
    from coview_triton import kernels

    flags = dict.fromkeys(("GREY", "SOLARIZE", "STANDARDIZE", "CLAMP"), False)
    once = {**PAINT, **flags, "READ": 2, "REACH": 0, "CHANNELS": 1, "BLOCK": 4096}
    types = {**POINTERS, **REALS, "source": "*u8", "out": "*fp32"}
    assert compiled(kernels.paint, types, {**once, "JITTER": True, "BLOCKS": 0}, capability)
    way = {"source": "*u8", "out": "*u8", "ways": "*i64", "unit_of": "fp32"}
    for along in (True, False):
        axis = {"TAPS": 2, "ROUND": along, "CLAMP": not along, "ALONG": along, "BLOCK": 256}
        assert compiled(kernels.resize, way, axis, capability)


def compiled(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], capability: int
) -> bytes:
    """Return the machine code of a kernel for a GPU of that capability."""
    names = {name: types.get(name, "i32") for name in kernel.arg_names}
    signature = {**names, **dict.fromkeys(constants, "constexpr")}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    code: bytes = triton.compile(source, target=target).asm["cubin"]
    return code


def made_by(backend: str) -> tuple[torch.Tensor, ...]:
    plan = coview.Plan(image_size=24, mean=(0.5,) * 3, std=(0.2,) * 3)
    settings = Augmentation(size=16, backend=backend, compile="off", solarize_p=0.3)
    views = CropViews([settings, settings], plan)
    images = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    batch = coview.Batch(images, torch.arange(4))
    step = coview.Step(number=3, device=torch.device("cpu"), component="views")
    torch.manual_seed(0)
    return tuple(views.generate_views(batch, step).crops)


def test_on_a_processor_it_is_the_fused_backend() -> None:
    torch.manual_seed(0)
    ours = made_by("triton")
    torch.manual_seed(0)
    theirs = made_by("fused")
    assert all(map(torch.equal, ours, theirs))


def test_it_cuts_whole_images() -> None:
    settings = Augmentation(size=16, crop_scale=(0.25, 1.0), backend="triton")
    assert settings.least_side(24) == 32


def test_without_triton_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match="needs Triton, which is not installed: pip install"):
        made_by("triton")
