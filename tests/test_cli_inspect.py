"""The commands that look: list, show, lineage, doctor."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import coview
from coview.cli import describe
from coview.cli.describe import description
from coview.cli.source import part_of, source_of
from coview.hookspecs import ROLES
from coview.registry import KINDS, entries

METHODS = ("byol", "instdisc", "moco", "moco-v2", "simclr")
WORDS = {
    "methods": "method",
    "views": "view",
    "encoders": "encoder",
    "targets": "target",
    "negatives": "negative",
    "losses": "loss",
    "wrappers": "wrapper",
    "datasets": "dataset",
    "backbones": "backbone",
    "observers": "observer",
    "commands": "command",
    "studies": "study",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "protocols": "protocol",
    "view_backends": "view-backend",
    "weights": "weights",
    "reports": "report",
    "peers": "peer",
    "catalogues": "catalogue",
}


def test_list_names_everything_with_package_and_version(run: Callable[..., Any]) -> None:
    text = run("list").stdout.split()
    for entry in run("list", "--json").json:
        assert entry["kind"] in KINDS
        assert entry["version"] == metadata.version(entry["package"])
        assert {f"{entry['kind']}:", entry["name"], entry["package"], entry["version"]} <= {*text}


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_from_a_part_of_a_file_is_that_of_the_whole(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [description(entry) for entry in entries(kind)]
    monkeypatch.setattr(describe, "part_of", lambda module, name: source_of(module))
    assert [description(entry) for entry in entries(kind)] == found


def test_a_part_of_a_file_is_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = '"""Of the module."""\nimport os\nA: int = (\n    1\n)\n"""Of A."""\n'
    text += 'class B:\n    """Of B."""\n'
    (tmp_path / "parts_of_it.py").write_text(text)
    shown = [ast.unparse(part) if (part := part_of("parts_of_it", name)) else "" for name in "AB"]
    assert shown[0] == '"""Of the module."""\nA: int = 1\n\'Of A.\''
    assert shown[1] == '"""Of the module."""\n\nclass B:\n    """Of B."""'
    (tmp_path / "cut_in_it.py").write_text('"""Of the\nimport of the module."""\nA = """\nx\n"""\n')
    whole = source_of("cut_in_it")
    part = part_of("cut_in_it", "A")
    assert whole is not None and part is not None
    assert ast.dump(part) == ast.dump(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_one_kind_in_singular_and_plural(run: Callable[..., Any], kind: str) -> None:
    group = metadata.entry_points(group=f"coview.{kind}")
    for word in (kind, WORDS[kind]):
        found = run("list", word, "--json").json
        assert sorted(e["name"] for e in found) == sorted(p.name for p in group)
        assert {e["kind"] for e in found} <= {kind}
        lines = run("list", word).stdout.splitlines()
        assert lines[0] == (f"{kind}:" if found else f"{kind}: none installed")
        assert [line.split()[0] for line in lines[1:]] == [e["name"] for e in found]


def test_list_has_the_five_methods_and_takes_role_names(run: Callable[..., Any]) -> None:
    assert {e["name"] for e in run("list", "methods", "--json").json} >= set(METHODS)
    for role in ROLES:
        assert run("list", role, "--json").json


@pytest.mark.parametrize("method", METHODS)
def test_show_gives_every_setting_with_meaning_and_layer(
    run: Callable[..., Any], method: str
) -> None:
    document = run("show", method, "--json").json
    text = run("show", method).stdout
    assert document["method"] == method and document["preset"] is None
    for table, parts in document["tables"].items():
        for part in parts:
            assert part["use"] in text and part["package"] in text
            for key, said in part["settings"].items():
                assert said["help"], f"{table}.{key} has no meaning"
                assert said["layer"] in ("recipe", "default")
                if not part["shared_with"]:
                    assert f"{table}.{key} = {said['value']}  ({said['layer']})" in text
                    assert said["help"] in text
    for key in ("epochs", "batch_size", "accumulate", "evaluates"):
        said = document["training"][key]
        assert f"{key} = {said['value']}  ({said['layer']})" in text
        assert said["help"] and said["help"] in text
    assert document["data"]["size"]["layer"] == "default" and "data.size = none" in text


def test_show_says_which_layer_set_what(run: Callable[..., Any]) -> None:
    changes = ("--image-size", 32, "--set", "negatives.size=512", "--epochs", 3)
    document = run("show", "moco", *changes, "--json").json
    assert document["preset"] == "small"

    def layer(table: str, key: str) -> tuple[Any, str]:
        said = document["tables"][table][0]["settings"][key]
        return said["value"], said["layer"]

    assert layer("negatives", "size") == (512, "command line")
    assert layer("target", "decay") == (0.99, "preset small")
    assert layer("target", "shuffle") == (True, "recipe")
    assert layer("target", "buffers") == ("own", "default")
    assert document["training"]["epochs"] == {
        "value": 3,
        "help": "passes over the training set",
        "layer": "command line",
    }
    assert document["data"]["size"]["value"] == 32


def test_show_of_instdisc_says_that_the_bank_fills_two_roles(run: Callable[..., Any]) -> None:
    (negatives,) = run("show", "instdisc", "--json").json["tables"]["negatives"]
    assert negatives["shared_with"] == "target"
    assert "the same component as the target" in run("show", "instdisc").stdout


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", ["none", 32])
def test_the_printed_file_is_read_back_as_the_same_recipe(
    run: Callable[..., Any], method: str, size: str | int
) -> None:
    options = () if size == "none" else ("--image-size", size)
    text = run("show", method, *options, "--toml").stdout
    Path("mine.toml").write_text(text, encoding="utf-8")
    assert run("show", "mine.toml", "--toml").stdout == text
    before, after = run("show", method, *options, "--json").json, run("show", "mine.toml", "--json")
    for table, parts in before["tables"].items():
        again = after.json["tables"][table]
        assert [p["use"] for p in again] == [p["use"] for p in parts]
        for old, new in zip(parts, again, strict=True):
            values = {key: said["value"] for key, said in old["settings"].items()}
            assert values == {key: said["value"] for key, said in new["settings"].items()}
    document = tomllib.loads(text)
    assert document["name"] == method and document["data"]["size"] == size
    assert coview.recipe("mine.toml").name == method


def test_show_reads_a_file_that_holds_only_what_differs(run: Callable[..., Any]) -> None:
    Path("mine.toml").write_text(
        'base = "moco-v2"\nepochs = 7\nnegatives = "in-batch"\n[loss]\ntemperature = 0.3\n',
        encoding="utf-8",
    )
    for options in ((), ("--image-size", 32)):
        # What a file says comes above the preset of its base: the preset's size of a queue
        # must not reach the negatives that the file puts in its place.
        document = run("show", "mine.toml", *options, "--json").json
        assert document["preset"] == ("small" if options else None)
        assert document["training"]["epochs"] == {
            "value": 7,
            "help": "passes over the training set",
            "layer": "file",
        }
        assert [p["use"] for p in document["tables"]["negatives"]] == ["in-batch"]
        loss = document["tables"]["loss"][0]
        assert loss["use"] == "info-nce"
        temperature = loss["settings"]["temperature"]
        assert (temperature["value"], temperature["layer"]) == (0.3, "file")


def test_lineage_draws_the_family(run: Callable[..., Any]) -> None:
    family = {branch["method"]: branch for branch in run("lineage", "--json").json}
    assert set(family) >= set(METHODS)
    packages = {
        role: [use["package"] for use in uses] for role, uses in family["moco-v2"]["roles"].items()
    }
    assert packages == {
        "views": ["coview-simclr"],
        "encoder": ["coview-simclr"],
        "target": ["coview-moco"],
        "negatives": ["coview-moco"],
        "loss": ["coview-cpc"],
    }
    assert family["byol"]["roles"]["negatives"] == []
    text = run("lineage").stdout
    for branch in family.values():
        assert f"{branch['method']}  [{branch['package']}]  {branch['summary']}" in text


def test_lineage_of_one_method(run: Callable[..., Any]) -> None:
    assert [b["method"] for b in run("lineage", "moco", "--json").json] == ["moco"]
    lines = [line.split(maxsplit=2) for line in run("lineage", "moco").stdout.splitlines()[1:]]
    assert ["negatives", "queue", "its own"] in lines
    assert ["loss", "info-nce", "from coview-cpc"] in lines


def test_doctor_finds_nothing_wrong_here(run: Callable[..., Any]) -> None:
    report = run("doctor", "--json").json
    assert report["problems"] == []
    assert report["devices"][0] == "cpu"
    assert report["libraries"]["torch"] == metadata.version("torch")
    for method in METHODS:
        package = report["packages"][f"coview-{method}"]
        assert package["version"] == metadata.version(f"coview-{method}")
        assert f"methods:{method}" in package["brings"] and not package["broken"]
    text = run("doctor").stdout
    assert "no problems found" in text and "coview-moco-v2" in text
    assert "ok  1 method, 1 target, 1 negatives component, " in text  # coview-moco
    assert "queue" not in text and "negatives:queue" in run("doctor", "-v").stdout


def test_each_network_is_described_by_itself(run: Callable[..., Any]) -> None:
    things = run("list", "backbones", "--json").json
    said = [(thing["package"], thing["description"]) for thing in things]
    assert len(said) > 30 and sorted(set(said)) == sorted(said)
    selective = "ResNet-101 of twice the width, with selective kernels: 4096 features"
    assert ("coview-simclr-v2", selective) in said


@pytest.mark.parametrize("group", [(), ("evaluate",)])
def test_commands_are_sorted_and_described_in_whole_sentences(
    run: Callable[..., Any], group: tuple[str, ...]
) -> None:
    listed = run(*group, "--help").stdout.partition("Commands:\n")[2]
    names = re.findall(r"^  (\S+) ", listed, re.MULTILINE)
    assert len(names) > 6 and names == sorted(names)
    cut = [line for line in listed.splitlines() if line.endswith("...")]
    assert [line for line in cut if not line.endswith("data sets, ...")] == []


def test_help_and_version(run: Callable[..., Any]) -> None:
    text = run("--help").stdout
    for command in ("list", "show", "lineage", "train", "evaluate", "embed", "views", "doctor"):
        assert f"\n  {command} " in text
        assert "Usage: " in run(command, "--help").stdout
    assert run("--version").stdout == f"coview {metadata.version('coview')}\n"


def test_show_says_what_a_method_needs_beside_images(run: Callable[..., Any]) -> None:
    text = run("show", "supcon").stdout
    assert "needs of every image: labels (" in text and "of package coview-supcon)" in text
    assert run("show", "supcon", "--json").json["needs_fields"] == ["labels"]
    assert "needs of every image" not in run("show", "simclr").stdout
    assert run("show", "simclr", "--json").json["needs_fields"] == []


def test_show_lists_the_fields_of_a_data_set(run: Callable[..., Any], tmp_path: Path) -> None:
    from PIL import Image

    lines = ["path,label,caption"]
    for number in range(8):
        Image.new("L", (8, 8), 30 * number).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},a grey of {number}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    said = run("show", "--data", tmp_path / "all.csv")
    assert "  fields of every image: caption, label" in said.stdout
    assert run("show", "--data", tmp_path / "all.csv", "--json").json["fields"] == [
        "caption",
        "label",
    ]
