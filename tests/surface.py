"""What users and plugin authors touch, as plain values: names, signatures, options, keys, files.

``python tests/surface.py`` prints it for the coview that is installed. What version 0.1
printed is kept in ``data/surface-0.1.json``, and ``test_surface.py`` compares.
"""

from __future__ import annotations

import importlib
import inspect
import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

import coview
from coview.cli import main

KEPT = Path(__file__).parent / "data" / "surface-0.1.json"


def shape(thing: Any) -> Any:
    """Return a function's or class's parameters, each with whether it may be left out."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        [p.name, p.kind.name, p.default is not p.empty or p.kind.name.startswith("VAR")]
        for p in parameters
    ]


def names_at_the_top() -> dict[str, Any]:
    """Return the shape of everything in ``coview.__all__``."""
    return {name: shape(getattr(coview, name)) for name in coview.__all__}


def toolkit(places: list[str]) -> dict[str, Any]:
    """Return the shape of each ``module:name`` that a plugin imports."""
    found = {}
    for place in places:
        module, _, name = place.partition(":")
        found[place] = shape(getattr(importlib.import_module(module), name))
    return found


def options() -> dict[str, Any]:
    """Return what each command takes, by its words."""
    found: dict[str, Any] = {}

    def walk(command: click.Command, words: str) -> None:
        found[words] = {
            parameter.name: {
                "written": [*parameter.opts, *parameter.secondary_opts],
                "required": parameter.required,
                "multiple": parameter.multiple,
                "flag": getattr(parameter, "is_flag", False),
                "choices": list(getattr(parameter.type, "choices", ())),
            }
            for parameter in command.params
        }
        if isinstance(command, click.Group):
            ctx = click.Context(command)
            for name in command.list_commands(ctx):
                below = command.get_command(ctx, name)
                assert below is not None
                walk(below, f"{words} {name}")

    walk(main, "coview")
    return found


def keys(value: Any) -> Any:
    """Return the keys of nested tables; of a list, those of its first item."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else None


def run(*words: str) -> Any:
    """Return the JSON that a command prints."""
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, (words, done.output, done.exception)
    return json.loads(done.stdout)


def documents() -> dict[str, Any]:
    """Return the keys of every JSON document, and of the files that a run leaves."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        small = ("--backbone", "resnet10-quarter", "--batch-size", "64", "--device", "cpu")
        small = (*small, "--preset", "small")
        trained = run(
            *("train", "moco-v2", "--data", "digits", *small, "--max-steps", "2"),
            *("--set", "negatives.size=64", "--out", str(out), "--observe", "csv"),
        )
        lines = (out / "metrics.jsonl").read_text().splitlines()
        found = {
            "list": keys(run("list")),
            "lineage": keys(run("lineage", "moco-v2")),
            "show": keys(run("show", "moco-v2")),
            "train": keys(trained),
            "train --dry-run": keys(run("train", "simclr", "--preset", "small", "--dry-run")),
            "evaluate knn": keys(run("evaluate", "knn", str(out))),
            "evaluate table": keys(run("evaluate", "table", str(out))),
            "embed": keys(run("embed", str(out), "--out", str(Path(folder) / "e.npz"))),
            "export": keys(run("export", str(out), "--out", str(Path(folder) / "b.safetensors"))),
            "run.json": keys(json.loads((out / "run.json").read_text())),
            "recipe.toml": keys(tomllib.loads((out / "recipe.toml").read_text())),
            "metrics.jsonl": sorted({key for line in lines for key in json.loads(line)}),
            "files": sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()),
        }
    return found


def surface(places: list[str]) -> dict[str, Any]:
    """Return all of it."""
    return {
        "top": names_at_the_top(),
        "toolkit": toolkit(places),
        "options": options(),
        "documents": documents(),
    }


if __name__ == "__main__":
    known = json.loads(KEPT.read_text(encoding="utf-8"))
    print(json.dumps(surface(list(known["toolkit"]))))
