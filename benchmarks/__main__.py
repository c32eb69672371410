"""python -m benchmarks NAME [options]: measure one question; its figures go to results/.

`python -m benchmarks NAME --help` says what a question measures, and its options.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks import runner

FOLDER = Path(__file__).resolve().parent
SHARED = ("__init__", "__main__", "engine", "peers", "roofline", "runner")
QUESTIONS = tuple(sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in SHARED))
PLAIN = argparse.RawDescriptionHelpFormatter


def main(words: list[str]) -> None:
    """Ask the question that the first word names, with the options after it."""
    # Without importing them: most import torch.
    said = {name: ast.parse((FOLDER / f"{name}.py").read_text("utf-8")) for name in QUESTIONS}
    lines = [f"  {name:10}{str(ast.get_docstring(t)).splitlines()[0]}" for name, t in said.items()]
    top = argparse.ArgumentParser("python -m benchmarks", formatter_class=PLAIN)
    top.description, top.epilog = __doc__, "\n".join(["questions:", *lines])
    top.add_argument("name", choices=QUESTIONS, metavar="NAME")
    name = top.parse_args(words[:1]).name
    question: Any = importlib.import_module(f"benchmarks.{name}")
    question.main(runner.asked(name, question.__doc__, question.OPTIONS, words[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
