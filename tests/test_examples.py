"""Notebooks run as they stand, and files for containers name what there is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(ROOT.glob("examples/*.ipynb"))


def notebook(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_what_it_printed(path: Path) -> None:
    cells = [cell for cell in notebook(path)["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the libraries that run it
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    read = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(read, timeout=300, kernel_name="python3", resources=place).execute()
    shown = [output for cell in read.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)
    (after,) = [
        eval(output["data"]["text/plain"])
        for output in shown
        if "knn_top1" in output.get("data", {}).get("text/plain", "")
        and output["data"]["text/plain"].startswith("{")
    ]
    assert after["knn_top1"] > 0.2  # of ten digits
    assert shown[-1]["data"]["text/plain"].startswith("torch.Size([4, ")


def test_the_docker_file_installs_every_package() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = dict(re.findall(r"^COPY (\S+) /coview/(\S+)$", text, re.MULTILINE))
    assert copied == {name: name for name in ("constraints.txt", "core", "plugins")}
    install = r"^RUN cd /coview && pip install --no-cache-dir -c constraints\.txt (.*)$"
    (line,) = re.findall(install, text, re.MULTILINE)
    command = f"for folder in {line}; do echo $folder; done"
    folders = subprocess.check_output(["/bin/sh", "-c", command], cwd=ROOT, text=True).split()
    found = {Path(folder) for folder in folders if not Path(folder).name.startswith("__")}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert found == {Path(line[3:]) for line in lines if line.startswith("-e ")}


def test_a_devcontainer_has_what_contributors_install() -> None:
    file = ROOT / ".devcontainer" / "devcontainer.json"
    command = json.loads(file.read_text(encoding="utf-8"))["postCreateCommand"]
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^pip install -r requirements\.txt .*$", page, re.MULTILINE)
    words = shlex.split(line, comments=True)
    assert shlex.split(command) == [*words[:2], "-c", "constraints.txt", *words[2:]]
