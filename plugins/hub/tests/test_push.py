"""Weights to the Hub and back: the real client library against a stand-in on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import coview as library
from coview.cli import main

Coview = Callable[..., subprocess.CompletedProcess[str]]
HIDDEN = "hidden-place"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(HIDDEN) / "photos"
    for number in range(60):
        kind = folder / ("ant", "bee")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        values = np.random.RandomState(number).randint(0, 256, (32, 32, 3), np.uint8)
        values[..., number % 2] //= 4
        Image.fromarray(values).save(kind / f"{number}.png")
    return folder


def trained(photos: Path, out: Path, backbone: str, **settings: Any) -> Path:
    library.train(
        "simclr", data=str(photos), backbone=backbone, batch_size=16, max_steps=2, compile=False,
        report=False, set=settings, out=out,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(HIDDEN) / "run"
    return trained(photos, out, "resnet18", **{"backbone.stem": "7x7"})


def test_weights_go_there_and_timm_loads_them(
    hub: Any, coview: Coview, run: Path, tmp_path: Path
) -> None:
    done = coview("push", run, "hf:me/birds", "--license", "mit", "--yes")
    assert f"sent: {hub.address}/me/birds" in done.stdout
    files = hub.files["me/birds"]
    assert set(files) == {"model.safetensors", "config.json", "recipe.toml", "README.md"}
    assert not any(HIDDEN.encode() in content for content in files.values())

    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.save((images, library.load_backbone(run)(images).detach()), tmp_path / "expected.pt")
    card = files["README.md"].decode()
    lines = card.split("```python\n")[1].split("```")[0]
    assert len(lines.strip().splitlines()) == 3 and "hf-hub:me/birds" in lines
    check = f"""
{lines}
import sys, torch
import numpy as np
from PIL import Image
images, expected = torch.load({str(tmp_path / "expected.pt")!r})
size = timm.data.resolve_model_data_config(net)["input_size"][-1]
assert size == 32, size
picture = (images[0] * 255).round().to(torch.uint8)
looked = look(Image.fromarray(picture.permute(1, 2, 0).numpy()))
mean, std = (torch.tensor(net.pretrained_cfg[n]).view(-1, 1, 1) for n in ("mean", "std"))
assert torch.allclose(looked, (picture / 255 - mean) / std, atol=1e-5)
with torch.no_grad():
    found = net((images - mean) / std)
assert torch.allclose(found, expected, atol=1e-5), (found - expected).abs().max()
assert not any(name == "coview" or name.startswith("coview.") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_card_says_what_the_run_was(hub: Any, coview: Coview, run: Path) -> None:
    coview("evaluate", "knn", run)
    coview("push", run, "hf:me/birds", "--license", "cc-by-4.0", "--yes", "--private")
    from huggingface_hub import ModelCard

    assert hub.private["me/birds"] is True
    text = hub.files["me/birds"]["README.md"].decode()
    about = ModelCard(text).data.to_dict()
    assert about["license"] == "cc-by-4.0" and about["library_name"] == "timm"
    assert about["tags"] == ["coview", "self-supervised", "simclr"]
    facts = json.loads((run / "run.json").read_text())
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (knn,) = [entry["knn"] for entry in entries if "knn" in entry]
    assert f"{100 * knn['top1']:.1f} % | {knn['test_images']} test images" in text
    assert "arXiv:2002.05709" in text and f"{facts['data']['train_images']} training images" in text
    assert "folder:photos" in text and "| seed | 0 |" in text
    recipe = library.recipe(_written(hub.files["me/birds"]["recipe.toml"], run.parent))
    assert recipe.batch_size == 16 and recipe.name == "simclr"


def _written(content: bytes, folder: Path) -> Path:
    path = folder / "again.toml"
    path.write_bytes(content)
    return path


def test_weights_come_back_for_training_and_evaluation(
    hub: Any, coview: Coview, run: Path, photos: Path, tmp_path: Path
) -> None:
    coview("push", run, "hf:me/birds", "--license", "mit", "--yes")
    again = tmp_path / "again"
    short = ("--batch-size", "16", "--max-steps", "1", "--no-compile", "--no-evaluate")
    network = ("--backbone", "resnet18", "--set", "backbone.stem=7x7", "--data", photos)
    still = ("--set", "optimizer.lr=1e-30", "--init", "hf:me/birds")
    coview("train", "simclr", *network, *short, *still, "--out", again)
    before, after = (library.load_backbone(path).backbone for path in (run, again))
    for (name, first), second in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.allclose(first, second, rtol=0, atol=1e-12), name

    def found(weights: str | Path) -> Any:
        words = ("evaluate", "knn", weights, "--data", photos, "--json")
        return json.loads(coview(*words).stdout)["top1"]

    assert found("hf:me/birds") == found(run)
    # The second time nothing is fetched, and without the Hub neither.
    seen = len([r for r in hub.requests if r.startswith("GET")])
    hub.files.clear()
    subprocess.run(
        [sys.executable, "-c", "import coview; coview.load_backbone('hf:me/birds')"],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert len([r for r in hub.requests if r.startswith("GET")]) == seen


def test_networks_that_timm_has_not_are_loaded_by_the_lines_on_the_card(
    hub: Any, coview: Coview, photos: Path, tmp_path: Path
) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for backbone in ("resnet10-quarter", "resnet18"):  # the latter with a first layer of its own
        stem = {} if backbone == "resnet10-quarter" else {"backbone.stem": "3x3"}
        out = trained(photos, tmp_path / HIDDEN / backbone, backbone, **stem)
        coview("push", out, f"hf:me/{backbone}", "--license", "mit", "--yes")
        files = hub.files[f"me/{backbone}"]
        assert "config.json" not in files and HIDDEN not in files["README.md"].decode()
        lines = files["README.md"].decode().split("```python\n")[1].split("```")[0]
        exported = library.load_backbone(out)
        normal = (images - exported.mean) / exported.std
        own = "coview" in lines
        torch.save((images if own else normal, exported(images).detach()), tmp_path / "e.pt")
        check = f"""
{lines}
import torch
images, expected = torch.load({str(tmp_path / "e.pt")!r})
with torch.no_grad():
    assert torch.allclose(net(images), expected, atol=1e-5)
"""
        subprocess.run([sys.executable, "-c", check], check=True)


def test_nothing_is_sent_unasked(
    hub: Any, coview: Coview, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = coview("push", run, "hf:me/birds", "--license", "mit", status=2)
    assert "Nothing was sent: this needs your confirmation" in done.stderr

    def never(*_: Any) -> str:
        raise AssertionError("something was sent")

    monkeypatch.setattr("coview_hub.push._sent", never)

    def here(*words: str | Path) -> Result:
        return CliRunner().invoke(main, ["push", *map(str, words)])

    shown = here(run, "hf:me/birds", "--license", "mit", "--dry-run")
    assert shown.exit_code == 0 and "# birds" in shown.stdout
    assert "model.safetensors" in shown.stdout and "Nothing was sent" in shown.stderr
    for words in ((run, "hf:me/birds", "--yes"), (run, "hf:me/birds")):
        done = here(*words)
        assert done.exit_code == 2 and "Say under which licence" in done.stderr
    for wrong in ("me/birds", "hf:birds", "hf:a/b/c", "hf:me/birds@main", "s3:me/birds"):
        assert here(run, wrong, "--license", "mit", "--yes").exit_code == 2
    assert here(tmp_path, "hf:me/birds", "--license", "mit", "--yes").exit_code == 2
    assert hub.requests == [] and hub.files == {}


@pytest.mark.parametrize(("typed", "sent"), [("y", True), ("n", False), ("", False)])
def test_a_terminal_is_asked(
    run: Path, monkeypatch: pytest.MonkeyPatch, typed: str, sent: bool
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("coview_hub.push._sent", lambda *words: calls.append(words) or "there")
    monkeypatch.setattr("coview_hub.push._at_terminal", lambda: True)
    done = CliRunner().invoke(main, ["push", str(run), "hf:me/birds"], input=f"mit\n{typed}\n")
    assert "Under which licence" in done.stdout and "Send it?" in done.stdout
    assert done.exit_code == (0 if sent else 1), done.output
    assert bool(calls) == sent


@pytest.mark.slow
def test_a_hub_that_refuses_or_is_not_there_is_a_sentence(
    hub: Any, coview: Coview, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("push", run, "hf:me/birds", "--license", "mit", "--yes")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf auth login" in coview(*words, status=1).stderr
    assert (
        "There is no repository me/gone"
        in coview("evaluate", "knn", "hf:me/gone", "--data", "digits", status=2).stderr
    )
    hub.files["me/empty"] = {"README.md": b"nothing"}
    assert (
        "holds no file of weights"
        in coview("evaluate", "knn", "hf:me/empty", "--data", "digits", status=2).stderr
    )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    assert "cannot be reached" in coview(*words, status=1).stderr
    assert "Traceback" not in coview(*words, status=1).stderr
    done = coview("evaluate", "knn", "hf:me/birds", "--data", "digits", status=1)
    assert "not in this machine's cache" in done.stderr
    done = coview("evaluate", "knn", "ftp:me/birds", "--data", "digits", status=2)
    assert "no place of weights called 'ftp'" in done.stderr
