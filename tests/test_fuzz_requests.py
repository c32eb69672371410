"""Mutated recipes and random command lines: a sentence and a status, never a traceback or a hang.

Everything is drawn from a seeded generator, so a failure names the case that shows it again.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from coview.cli import main

SECONDS = 60
"""A request that takes longer hangs: the slowest takes two."""

NUMBERS = (
    *("-1", "0", "1", "2", "0.5", "-0.0", "1e-320", "1e308", "1e400", "nan", "inf", "-inf"),
    *(str(2**31), str(2**63), str(2**64 + 1), "9" * 400, "9" * 5000, "0x10", "1_000", "1__0", "+3"),
)
TEXTS = (
    *("''", '""', '"none"', '"a b"', '"é漢字🜁"', '"\\u0000"', '"\\uD800"', "'" + "x" * 5000 + "'"),
    *("bare", "true", "false", "[]", "{}", "[[]]", "[1, 'a', {}]", "{a = 1}", "{use = 3}"),
    *("1979-05-27", "07:32:00", '"cosine(0.1, 0.2)"', '"cosine(1)"', '"linear(nan, 1)"'),
    *('"cosine(0, 1, epochs=-3)"', '"linear(0, 1, epochs=1e400)"', '"steps()"', '"cosine("'),
    *("[" * 2000 + "]" * 2000, '"../../etc/passwd"', '"%s%n{0}"', '"-"', '"--help"'),
)
VALUES = (*NUMBERS, *TEXTS)
# No "/" and "..": what lies there is the machine's, and walking through it takes minutes.
WORDS = (
    *("", " ", "-", "--", "=", "a=b=c", "a.b", ".", "/dev", "~", "nowhere", "x.toml", "é漢字🜁"),
    # No NUL: no operating system hands one over.
    *("\udcff", "\n", "%", "*", "digits", "simclr", "moco-v2", "coview-moco:queue", "loss"),
    *("loss=nce", "negatives=queue,none", "loss.temperature=0.1", "views=", "=nce", "x" * 3000),
    *(
        "folder:nowhere",
        "idx:",
        "wds:",
        ":",
        "digits:digits",
        "python:x",
        "10m",
        "0m",
        "-5m",
        "1e9m",
    ),
    *("cpu", "cuda", "cuda:99", "cuda:-1", "meta", "bf16", "small", "none", "resnet50", "progress"),
    *("progress:a=1", "anomaly", "anomaly:x", ":", "junk.toml", "junk", "empty", *NUMBERS),
)
# These train or measure for minutes what they are given by name; the demo needs not even that.
LONG = ("check", "study")
DEMO = ("demo",)
NAMES = ("simclr", "moco-v2", "progress", "anomaly", "digits", "loss", "small", "junk.toml")


@contextmanager
def limited() -> Iterator[None]:
    """Raise in what takes too long."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def expired(number: int, frame: Any) -> None:
        raise TimeoutError(f"it took {SECONDS} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answer(arguments: list[str], case: object) -> int:
    """Run a command; it must end with a status, and with a sentence of ours if that is not 0."""
    with limited():
        result = CliRunner().invoke(main, arguments, prog_name="coview")
    shown = f"case {case}: coview {arguments!r}\n{result.output[-3000:]}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(shown) from result.exception
    assert result.exit_code in (0, 1, 2), shown
    assert "Traceback" not in result.output, shown
    # The words that follow an error which nobody thought of.
    assert "coview --traceback COMMAND" not in result.output, shown
    assert result.exit_code == 0 or result.output.strip(), shown
    return result.exit_code


RUN_TABLE = """
[run]
data = "digits"
seed = 3
precision = "fp32"
workers = 0
max_steps = 5
"""
METHODS = ("byol", "dino", "instdisc", "moco-v2", "simclr-v2", "swav")


@cache
def written(method: str) -> str:
    """Return a method's recipe as TOML, every setting in it."""
    result = CliRunner().invoke(main, ["show", method, "--toml"], prog_name="coview")
    assert result.exit_code == 0
    return result.stdout


def mutated(chance: random.Random) -> bytes:
    """Return a recipe with one to three things wrong."""
    text = written(chance.choice(METHODS))
    if chance.random() < 0.2:
        text = f'base = "{chance.choice(METHODS)}"\n' + text
    if chance.random() < 0.3:
        text += RUN_TABLE
    lines = text.splitlines()
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(lines))
        key = lines[at].partition("=")[0]
        kind = chance.randrange(9)
        if kind <= 3:
            lines[at] = f"{key}= {chance.choice(VALUES)}"
        elif kind == 4:
            del lines[at]
        elif kind == 5:
            lines.insert(at, chance.choice((lines[at], chance.choice(lines), "[x]", "x = 1")))
        elif kind == 6:
            lines[at] = lines[at].replace(chance.choice(key or " "), chance.choice("é_. \x00"), 1)
        elif kind == 7:
            lines = lines[:at] or lines
        else:
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    data = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    for _ in range(chance.choice((0, 0, 0, 0, 1, 5))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.1 else data)


def fuzz_recipes(folder: Path, seed: int, count: int) -> list[int]:
    """Try so many mutated recipes; return how they ended."""
    file = folder / "recipe.toml"
    statuses = []
    for number in range(count):
        chance = random.Random(f"{seed}/{number}/recipe")
        file.write_bytes(mutated(chance))
        command = ["train", str(file), "--dry-run", "--device", "cpu"]
        if chance.random() < 0.3:
            command = ["show", str(file)]
        statuses.append(answer(command, (seed, number)))
    return statuses


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield (path, command) of everything that can be called."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        elif command is not None:
            yield (*before, name), command


def value_for(parameter: click.Parameter, chance: random.Random) -> str:
    kind = parameter.type
    if isinstance(kind, click.Choice) and chance.random() < 0.6:
        return str(chance.choice(kind.choices))
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return chance.choice(NUMBERS)
    return chance.choice(WORDS)


def arguments_for(command: click.Command, chance: random.Random) -> list[str]:
    """Return random arguments and options of a command, some of them no such."""
    drawn: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            drawn += [value_for(parameter, chance)] if chance.random() < 0.9 else []
            continue
        if chance.random() < 0.75 or not parameter.opts:
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        for _ in range(chance.choice((1, 1, 2)) if parameter.multiple else 1):
            drawn.append(chance.choice(names))
            if not parameter.is_flag:
                drawn.append(value_for(parameter, chance))
    if chance.random() < 0.1:
        drawn.insert(chance.randrange(len(drawn) + 1), chance.choice(("--no-such", *WORDS)))
    if chance.random() < 0.05 and drawn:
        del drawn[chance.randrange(len(drawn))]
    return drawn


def fuzz_command_lines(seed: int, count: int) -> dict[tuple[str, ...], int]:
    """Try so many random command lines; return how many of each command."""
    known = [(path, command) for path, command in commands(main) if path != DEMO]
    tried: dict[tuple[str, ...], int] = {}
    for number in range(count):
        chance = random.Random(f"{seed}/{number}/command")
        path, command = chance.choice(known)
        arguments = arguments_for(command, chance)
        if path == ("train",):
            arguments.append("--dry-run")
        if path[0] in LONG:
            arguments = [word for word in arguments if word not in NAMES]
        answer([*path, *arguments], (seed, number))
        tried[path] = tried.get(path, 0) + 1
    return tried


@pytest.fixture(autouse=True)
def resolved_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are fuzzed, not networks: a dry run would build the largest, for seconds each."""
    from coview.cli import train
    from coview.training.request import prepare

    monkeypatch.setattr(train, "_dry_run", lambda request, *_: prepare(request))


@pytest.fixture
def junk(tmp_path: Path) -> None:
    """Files that are not what their names say, where the words look for them."""
    (tmp_path / "junk").write_bytes(random.Random(0).randbytes(2000))
    (tmp_path / "junk.toml").write_bytes(b"\xff\xfe = [")
    (tmp_path / "empty").mkdir()


def test_mutated_recipes(tmp_path: Path) -> None:
    statuses = fuzz_recipes(tmp_path, 0, 250)
    assert statuses.count(2) > 100 and statuses.count(0) > 5


@pytest.mark.usefixtures("junk")
def test_random_command_lines() -> None:
    tried = fuzz_command_lines(0, 250)
    assert ("train",) in tried and len(tried) > 10


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("run = 3", "run must be a table, not 3"),
        ('[run]\nseed = "x"', "run.seed must be a whole number"),
        (f"[run]\nseed = {2**63}", "run.seed must be between"),
        ("[run]\nworkers = -1", "run.workers must be at least 0"),
        ("[run]\nmax_steps = -1", "run.max_steps must be at least 0"),
        ("[run]\nprecision = 3", "run.precision must be text"),
        ("[run]\nsead = 3", "run has no setting 'sead'. Did you mean 'seed'?"),
    ],
)
def test_a_run_table_that_is_none(tmp_path: Path, table: str, problem: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(f'base = "simclr"\n{table}\n' if "[" in table else f"{table}\nbase = 'byol'")
    result = CliRunner().invoke(main, ["train", str(file), "--dry-run"], prog_name="coview")
    assert result.exit_code == 2 and problem in result.stderr


@pytest.mark.slow
def test_many_mutated_recipes(tmp_path: Path) -> None:
    fuzz_recipes(tmp_path, 1, 3000)


@pytest.mark.slow
@pytest.mark.usefixtures("junk")
def test_many_random_command_lines() -> None:
    fuzz_command_lines(1, 3000)
