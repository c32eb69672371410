"""How a command ends: what happened on stdout, and on stderr what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands.options import print_json
from coview.commands.weights import computing
from coview.telling import listening
from coview.terminal import shown

if TYPE_CHECKING:
    from coview.api.writing import Embeddings

NEXT = {
    "knn": ("evaluate", "linear"),
    "linear": ("evaluate", "finetune", "--labels", "10%"),
    "finetune": ("export", "--out", "backbone.safetensors"),
    "retrieval": ("embed", "--out", "embeddings.npz"),
}
"""The command that most people want after an evaluation, without weights and data."""


def endings(lines: Iterable[str]) -> None:
    """Print lines on stderr, where they disturb no pipe."""
    for line in lines:
        click.echo(line, err=True)


def measured(
    evaluation: str,
    weights: Path,
    data: str | None,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Evaluate, print the result, and say what to type next.

    Args:
        evaluation: its name.
        weights: RUN_OR_WEIGHTS.
        data: ``--data``.
        options: all options of the command, among them those of every evaluation.
        settings: the options that are the evaluation's own.
    """
    click.echo(f"reading {shown(weights)}", err=True)
    from coview.api import evaluate

    with listening(lambda line: click.echo(line, err=True)):
        result = evaluate(weights, evaluation, data, **computing(dict(options)), **settings)
    if options["as_json"]:
        print_json(result)
        return
    click.echo(result)
    if result.kept is not None:
        table = again(("evaluate", "table", str(weights)))
        endings([f"kept in {result.kept}; all results of the run: {table}"])
    is_run = (weights / "run.json").is_file()
    name = data or options.get("query") or (None if is_run else result["data"])
    command, *others = NEXT.get(evaluation, NEXT["knn"])
    subcommand = [others.pop(0)] if command == "evaluate" else []
    about = words(weights, None if command == "export" else name, options)
    endings([f"next: {again((command, *subcommand, *about, *others))}"])


def words(weights: Path, data: str | None, options: Mapping[str, Any]) -> list[str]:
    """Return the words by which another command names the same weights and data."""
    found = [str(weights), *([] if data is None else ["--data", data])]
    if options.get("backbone") is not None:
        found += ["--backbone", options["backbone"]]
    return found + (["--pretrained"] if options.get("pretrained") else [])


def again(
    command: Sequence[str],
    uses: Sequence[str] = (),
    settings: Sequence[str] = (),
    shortcuts: Mapping[str, Any] | None = None,
) -> str:
    """Return a command line that can be copied, with the changes to a recipe that were given."""
    line = ["coview", *command]
    for name, value in (shortcuts or {}).items():
        if value is not None:
            line += [f"--{name.replace('_', '-')}", str(value)]
    for option, values in (("--use", uses), ("--set", settings)):
        for value in values:
            line += [option, value]
    return shlex.join(line)


def after_embedding(found: Embeddings, out: Path, about: Sequence[str]) -> list[str]:
    """Return how to read the file, and an evaluation of the same weights if there are labels."""
    name = str(out)
    reading = {
        ".csv": f"pandas.read_csv({name!r})",
        ".npy": f"numpy.load({name!r})",
        ".npz": f"numpy.load({name!r})['embeddings']",
        ".safetensors": f"safetensors.numpy.load_file({name!r})['embeddings']",
        ".parquet": f"pandas.read_parquet({name!r})",
    }[out.suffix]
    lines = [f"in Python: {reading}"]
    if found.labelled:
        lines.append(f"next: {again(('evaluate', 'retrieval', *about))}")
    return lines
