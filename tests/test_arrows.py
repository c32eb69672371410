"""Which room may import which: the picture in docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "core/src/coview"
FLOORS = (
    (
        *("errors", "files", "locks", "terminal", "caches", "own_code"),
        *("introspect", "seeds", "distributed", "moved", "telling", "torchrun"),
    ),
    ("hookspecs", "registry", "schedules", "settings", "records", "plan", "components"),
    ("recipes",),
    ("nn", "data"),
    ("losses", "optim", "views"),
    ("method",),
    ("weights",),
    ("evaluation",),
    ("training",),
    ("api", "testing"),
    ("commands", "studies"),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A room imports itself and the floors below it, nothing else."""
KERNEL = (*FLOORS[1], *FLOORS[2])
"""The contract and what a recipe is: read first, and apart from the ground it stands alone."""
GROUND_OF_THE_KERNEL = ("errors", "files", "introspect", "own_code", "seeds")
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Return the core's modules by name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(text: str, known: set[str]) -> set[str]:
    """Return the core's modules that a file imports: in functions and for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & known
            # A package that is only the way to a module of it is not what is meant.
            if not inside <= known:
                found.add(node.module)
    return found & known


def room(module: str) -> str:
    """Return the room of a module: the first name after ``coview``."""
    return module.split(".")[1] if "." in module else ""


def against(arrows: dict[str, set[str]]) -> Iterator[str]:
    """Yield a line for every import that goes against an arrow."""
    for module, others in arrows.items():
        for other in others:
            here, there = room(module), room(other)
            if not here or here == there:
                continue  # the package itself is lazy: names, no imports
            if not there or FLOOR[there] > FLOOR[here]:
                yield f"{module} -> {other}"
            elif FLOOR[there] == FLOOR[here] and here not in (*KERNEL, *FLOORS[0]):
                yield f"{module} -> {other} (the same floor)"
            elif here in KERNEL and there not in (*KERNEL, *GROUND_OF_THE_KERNEL):
                yield f"{module} -> {other} (out of the kernel)"


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in arrows[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in arrows[module]:
                found.append(sorted(group))

    for module in arrows:
        if module not in index:
            visit(module)
    return found


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    known = modules()
    return {m: imported(p.read_text(encoding="utf-8"), set(known)) for m, p in known.items()}


def test_every_room_is_on_a_floor(arrows: dict[str, set[str]]) -> None:
    assert {room(module) for module in arrows} - {""} == set(FLOOR)


def test_imports_go_down(arrows: dict[str, set[str]]) -> None:
    assert sorted(against(arrows)) == []


def test_no_circle(arrows: dict[str, set[str]]) -> None:
    assert circles(arrows) == []


def test_the_kernel_is_small() -> None:
    files = [path for module, path in modules().items() if room(module) in KERNEL]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert 1_000 < lines < 2_950


def test_the_arrows_are_seen_wherever_an_import_is_written() -> None:
    known = {"coview.nn.heads", "coview.training.loop", "coview.records", "coview.nn"}
    text = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from coview.training.loop import fit\n"
        "def f():\n    from coview.nn import heads\n    import coview.records\n"
    )
    found = imported(text, known)
    assert found == {"coview.training.loop", "coview.nn.heads", "coview.records"}
    wrong = {"coview.nn.heads": {"coview.training.loop"}, "coview.plan": {"coview.nn.heads"}}
    assert len(list(against(wrong))) == 2
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]
