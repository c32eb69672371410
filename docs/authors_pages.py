"""Pages for authors that are made from code: promises from the kit, components from templates."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

from coview.cli.new.kinds import KINDS
from coview.cli.new.scaffold import plugin_files
from coview.registry import KINDS as GROUPS
from coview.testing.kit import PROMISES, PROMISES_OF_DATA

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "docs" / "authors"

ABOUT = {
    "method": "A whole recipe. Every role has a component of this package, in a file of its own: "
    "those of [views](#views), [encoder](#encoder), [target](#target), [negatives](#negatives) and "
    "[loss](#loss) below, with their tests. With `--base METHOD` it is another method's "
    "recipe with one change, and has no components.",
    "loss": "Compares queries with keys and negatives, and returns one number with gradient. It is "
    "a mean over this process's rows, so that several processes can average gradients.",
    "views": "Makes the views of a batch, on the device. `CropViews` has crops, colours and blur; "
    "its `layout` says before the first batch which views there will be.",
    "encoder": "The network that is trained. `Encoder` has the backbone and decides how views pass "
    "through batch normalisation; a subclass sets a projector, and perhaps a predictor.",
    "target": "Gives the keys that queries are compared with. State that changes in "
    "`update_target` is in parameters or buffers, so that a checkpoint has it.",
    "negatives": "Gives what a query must differ from. It is read before it is written, so no "
    "positive is its own negative.",
    "wrapper": "Changes what goes into a role or comes out of it, whatever component fills the "
    "role: `hookimpl(wrapper=True)` and one `yield`. In a recipe: `wrap=(Use(...), ...)`.",
    "observer": "Watches a run and fills no role. It may implement any hook; what it measures "
    "stays on the device until it is logged.",
    "data": "A data set by name. It tells its size before it is loaded, and gives labels and other "
    "fields by name.",
    "optimizer": "An optimiser by name, with settings; schedules and parameter groups are "
    "coview's.",
    "protocol": "A way to evaluate weights with labels, which a recipe's table `probe` (or "
    "`finetune`) names.",
    "command": "A command of `coview`; the options for weights, data and device are shared.",
    "study": "A claim as an experiment: what is trained, what is measured, and the rule for the "
    "verdict, written down before the first run.",
}


def pages() -> dict[Path, str]:
    """Return every generated page for authors with its text."""
    return {
        HERE / "promises.md": promises(),
        HERE / "components.md": components(),
        HERE / "packages.md": packages(),
    }


def promises() -> str:
    """Return docs/authors/promises.md: what each promise means, and what breaks it."""
    broken, first = _broken(), PROMISES_OF_DATA[0].name
    parts = [
        "# What every method and data set promises\n\n"
        "Generated from `core/src/coview/testing/kit` and `tests/test_conformance.py`.\n\n"
        "`coview check METHOD` checks these, in this order, on a small network and noise; `--only "
        "NAME` checks one, `--data`, `--backbone` and `--device` check on what you use. A check "
        "in float64 says so. Each promise below has changes that break it, as a test applies them "
        "to a plugin that keeps all.\n\n"
        "`coview check SOURCE[:PATH]` checks a data set, which it loads twice, and of which it "
        "reads 64 images of each split: its promises follow those of methods, from "
        f"[{first}](#{first}) on.\n"
    ]
    for promise in (*PROMISES, *PROMISES_OF_DATA):
        facts = ["Checked in float64."] if promise.double else []
        facts += ["Starts processes, so `--fast` leaves it out."] if promise.slow else []
        about = f"\n\n{' '.join(facts)}" if facts else ""
        meaning = inspect.cleandoc(promise.check.__doc__ or "").replace("``", "`")
        parts.append(f"## {promise.name}\n\n{meaning}{about}\n")
        parts += [_change(name, texts) for name, kept, texts in broken if kept == promise.name]
    return "\n".join(parts)


def _broken() -> list[tuple[str, str, list[str]]]:
    """Return the broken plugins of the kit's own tests: what they do, which promise, the changes.

    Those tests import helpers that lie beside them.
    """
    tests, found = ROOT / "tests", []
    sys.path.insert(0, str(tests))
    try:
        for name in ("test_conformance", "test_data_promises"):
            spec = importlib.util.spec_from_file_location(name, tests / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            module: Any = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            found += [(case, promise, texts) for case, (promise, *texts) in module.BROKEN.items()]
    finally:
        sys.path.remove(str(tests))
    return found


def _change(name: str, texts: list[str]) -> str:
    lines: list[str] = []
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        before, after = (textwrap.dedent(text).splitlines() for text in (old, new))
        delta = difflib.ndiff(before, after)
        lines += [line.rstrip() for line in delta if not line.startswith("?")]
    return f"Broken by {name}:\n\n```diff\n" + "\n".join(lines) + "\n```\n"


def components() -> str:
    """Return docs/authors/components.md: what ``coview new`` writes for each kind."""
    parts = [
        "# One example of each kind\n\n"
        "Generated from the templates of `coview new`: `coview new my-KIND --kind KIND` writes "
        "these files, a `pyproject.toml` and a README. A test installs all of them, trains with "
        "them together, and runs their tests. [Hooks](../hooks.md) has all that a component may "
        "declare.\n",
        "\n".join(f"- [{kind.what}](#{name})" for name, kind in KINDS.items()) + "\n",
    ]
    for name, kind in KINDS.items():
        files = plugin_files(f"my-{name}", name)
        module = f"coview_my_{name}"
        shown = [f"src/{module}/{name}.py", f"tests/test_{name}.py"]
        if name == "loss":
            shown = [f"src/{module}/__init__.py", *shown, "tests/test_promises.py"]
        if name == "method":
            shown = [f"src/{module}/__init__.py", "tests/test_method.py"]
        blocks = [_block(place, files[place]) for place in shown]
        if name == "method":
            based = plugin_files("my-based", "method", "moco-v2")
            blocks.append("`coview new my-based --kind method --base moco-v2`:\n")
            places = ("src/coview_my_based/__init__.py", "tests/test_method.py")
            blocks += [_block(place, based[place]) for place in places]
        usage = "\n".join(line.replace("$name", f"my-{name}") for line in kind.usage)
        group = f"Entry-point group `coview.{kind.group}`."
        method = (
            " It comes with a recipe and `tests/test_promises.py`, as the [loss](#loss) has them."
            if kind.role and name != "loss"
            else ""
        )
        parts.append(
            f"## {name}\n\n{ABOUT[name]} {group}{method}\n\n```sh\n{usage}\n```\n\n"
            + "\n".join(blocks)
        )
    return "\n".join(parts)


def _block(place: str, text: str) -> str:
    return f"`{place}`:\n\n```python\n{text}```\n"


def packages() -> str:
    """Return docs/authors/packages.md with the table of entry-point groups in its place."""
    text = (HERE / "packages.md").read_text(encoding="utf-8")
    by_group = {kind.group: (name, kind) for name, kind in KINDS.items()}
    rows = ["| group | an example |", "| --- | --- |"]
    for group in GROUPS:
        name, kind = by_group.get(group, ("", None))
        shown = f"[{kind.what}](components.md#{name})" if kind else ""
        rows.append(f"| `coview.{group}` | {shown} |")
    begin, end = "<!-- groups: begin -->\n", "<!-- groups: end -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return before + begin + "\n".join(rows) + "\n" + end + after
