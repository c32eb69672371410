"""What the Tab key offers: in click's own words, in a real bash, and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from coview.caches import home_folder
from coview.cli.main import main
from coview.commands.completing import keep
from coview.registry import entries

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What one test keeps in its home, no other finds."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def offered(words: str) -> list[str]:
    """Return what is offered for the last word of a command line."""
    *args, incomplete = words.split(" ")
    completer = ShellComplete(main, {}, "coview", "_COVIEW_COMPLETE")
    return [item.value for item in completer.get_completions(args, incomplete)]


def test_names_come_from_what_is_installed() -> None:
    methods = [entry.name for entry in entries("methods")]
    assert offered("train ") == offered("show ") == methods and "simclr" in methods
    assert offered("train sims") == ["simsiam"]
    assert offered("train simclr --preset ") == ["small", "tiny", "none"]
    assert offered("train simclr --data moved") == ["moved-digits"]
    assert offered("train simclr --use neg") == ["negatives="]
    assert offered("train simclr --use negatives=queue,mem") == ["negatives=queue,memory-bank"]
    assert offered("train simclr --use nonsense=") == []
    assert set(offered("train simclr --observe pro")) == {"progress", "probe"}
    assert offered("study run simclr/col") == ["simclr/colour-shortcut"]
    assert offered("compl") == ["completion"]


def test_paths_are_left_to_the_shell() -> None:
    assert offered("train ./my-reci") == ["./my-reci"]
    assert offered("train simclr --data photos/") == ["photos/"]


def test_settings_are_those_of_the_recipe_until_all_are_kept() -> None:
    assert offered("train simclr --set loss.") == ["loss.temperature="]
    assert "data.background=" in offered("train simclr --set data.")
    assert offered("embed run --set data.back") == ["data.background="]
    assert offered("train nonsense --set loss.") == []
    keep()
    assert "loss.cosine=" in offered("train simclr --set loss.")
    assert "optimizer.nesterov=" in offered("train simclr --use optimizer=sgd --set optimizer.")
    assert "optimizer.nesterov=" not in offered("train simclr --set optimizer.")
    several = offered("train simclr --use loss=info-nce,regression --set loss.")
    assert {"loss.info-nce.temperature=", "loss.regression.weight="} <= set(several)
    file = home_folder() / "completion" / "settings.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "installed": "other packages"}))
    assert offered("train simclr --set loss.") == ["loss.temperature="]


def test_runs_are_found_by_what_a_run_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/second", "runs/no-run", "else/third"):
        Path(name).mkdir(parents=True)
        if name != "runs/no-run":
            Path(name, "run.json").write_text("{}")
    assert offered("embed ") == ["runs/first", "runs/second"]
    assert offered("evaluate knn runs/s") == ["runs/second"]
    assert offered("train --resume else/") == ["else/third"]
    assert offered("export nothing-he") == ["nothing-he"]


def test_no_torch_is_imported() -> None:
    code = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from coview.cli.main import main\n"
        "done = ShellComplete(main, {}, 'coview', '_X')\n"
        "for words in (['train', 'simclr', '--set'], ['evaluate', 'knn'], ['train']):\n"
        "    assert done.get_completions(words, '') is not None\n"
        "print(sorted({'torch', 'numpy', 'timm', 'kornia'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_new_bash_completes(tmp_path: Path) -> None:
    home = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "coview"
    program.write_text(f"#!{sys.executable}\nfrom coview.cli.main import main\nmain()\n")
    program.chmod(0o755)
    home["PATH"] = f"{folder}:{home['PATH']}"
    (tmp_path / ".bashrc").write_text("true")  # without an end of line
    for _ in range(2):
        said = subprocess.run(
            [program, "completion"], env=home, capture_output=True, text=True, check=True
        )
    lines = (tmp_path / ".bashrc").read_text().splitlines()
    assert lines == ["true", f"source {tmp_path}/.config/coview/completion.bash"]
    assert "A new bash completes `coview`." in said.stderr
    typed = (
        "source ~/.bashrc\nCOMP_WORDS=(coview train sims)\nCOMP_CWORD=2\n"
        "_coview_completion coview sims train\necho ${COMPREPLY[@]}\n"
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", typed], env=home, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["simsiam"], done.stderr


@pytest.mark.parametrize(
    ("shell", "file"),
    [("zsh", ".config/coview/completion.zsh"), ("fish", ".config/fish/completions/coview.fish")],
)
def test_other_shells(shell: str, file: str, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    printed = run("completion", shell, "--print").stdout
    assert "_COVIEW_COMPLETE" in printed and not (tmp_path / file).exists()
    run("completion", shell)
    assert (tmp_path / file).read_text().strip() == printed.strip()
    assert (tmp_path / ".zshrc").exists() == (shell == "zsh")
    monkeypatch.setenv("SHELL", "/bin/csh")
    (problem,) = run("completion", status=2).errors
    assert problem == "Your shell is csh: coview completion bash, zsh or fish."
