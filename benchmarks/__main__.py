"""python -m benchmarks NAME [options]: measure one question; README.md says more of each."""

import argparse
import ast
import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks import runner

FOLDER = Path(__file__).resolve().parent
SHARED = ("__init__", "__main__", "engine", "gpu_runs", "peers", "revisions", "runner")
QUESTIONS = tuple(sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in SHARED))


def main(words: list[str]) -> None:
    # Without importing them: most import torch.
    said = {name: ast.parse((FOLDER / f"{name}.py").read_text("utf-8")) for name in QUESTIONS}
    lines = [f"  {name:10}{ast.get_docstring(tree)}" for name, tree in said.items()]
    about = {"epilog": "\n".join(["questions:", *lines]), "description": __doc__}
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("python -m benchmarks", formatter_class=plain, **about)
    top.add_argument("name", choices=QUESTIONS, metavar="NAME")
    name = top.parse_args(words[:1]).name
    question: Any = importlib.import_module(f"benchmarks.{name}")
    question.main(runner.asked(name, question.__doc__, question.OPTIONS, words[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
