"""docs/benchmarks.md, from the raw figures in benchmarks/results/.

Every result file has the facts of its run (command, date, device, versions) and,
somewhere inside, paired ratios as ``benchmarks/side_by_side.compared`` gives
them. They are found wherever they are, so a new benchmark needs nothing here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Checks that methods learn, with tables of their own elsewhere.
ELSEWHERE = ("digits", "collapse", "soak")
HEAD = """# Benchmarks

Generated from `benchmarks/results/` by `python docs/generate.py`; `nox -s "benchmark(NAME)"`
measures one again. A ratio is the median over pairs of rounds that ran one after the other, with
the 95 % interval of that median: below 1, what stands first is the faster (or smaller) one.
Absolute times on a shared machine mean little and are left to the raw files.

{gpu}
"""
NO_GPU = (
    "**Not yet measured on a GPU.** The scripts run on one where there is one, and their figures "
    "then stand here."
)
KEYS = {"of", "to", "median", "interval_95"}


def text() -> str:
    """Return the whole page."""
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    on_gpu = any("NVIDIA" in str(document.get("device")) for document in documents.values())
    parts = [HEAD.format(gpu="" if on_gpu else NO_GPU).rstrip() + "\n"]
    for name, document in documents.items():
        if name not in ELSEWHERE and not name.startswith("accuracy"):
            parts.append(_section(name, document))
    parts += _accuracy()
    return "\n".join(parts)


def _section(name: str, document: Mapping[str, Any]) -> str:
    lines = [f"## {name}", "", _facts(document), ""]
    ratios = list(_ratios(document, ()))
    if ratios:
        lines += ["| what | ratio | median | 95 % interval | pairs |", "|---|---|---|---|---|"]
        lines += [_row(path, ratio) for path, ratio in ratios]
        lines.append("")
    lines += _numbers(document)
    return "\n".join(lines)


def _facts(document: Mapping[str, Any]) -> str:
    versions = document.get("libraries") or document.get("versions") or {}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    said = [
        f"`{document['command']}`" if "command" in document else "",
        str(document.get("device", "")),
        f"{document['threads']} threads" if "threads" in document else "",
        str(document.get("date", "")),
        listed,
    ]
    return "; ".join(part for part in said if part) + "."


def _ratios(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every paired ratio with the names it is filed under."""
    if isinstance(value, Mapping):
        if value.keys() >= KEYS:
            yield path, value
            return
        for key, item in value.items():
            yield from _ratios(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _ratios(item, path)


def _row(path: tuple[str, ...], ratio: Mapping[str, Any]) -> str:
    low, high = ratio["interval_95"]
    noise = ("rows", "ratios", "ratio", "rows_by_width", "figures", "comparisons")
    where = ", ".join(part for part in path if part not in noise)
    return (
        f"| {where} | {ratio['of']} / {ratio['to']} | {ratio['median']:.3f} | "
        f"{low:.3f} to {high:.3f} | {ratio['pairs']} |"
    )


def _numbers(document: Mapping[str, Any]) -> list[str]:
    """Return what a document says in `summary`: a table of plain numbers by row and column."""
    summary = document.get("summary")
    if not summary:
        return []
    columns = list(dict.fromkeys(key for row in summary.values() for key in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in summary.items():
        cells = " | ".join(str(row.get(column, "")) for column in columns)
        lines.append(f"| {name} | {cells} |")
    return [*lines, ""]


def _accuracy() -> list[str]:
    sys.path.insert(0, str(RESULTS.parent))
    import accuracy

    found = accuracy.runs()
    if not found:
        return []
    wanted = len(accuracy.OWN) * len(accuracy.BACKENDS) * len(accuracy.SEEDS)
    if len(found) < wanted:
        return [f"## Does speed cost accuracy?\n\nNot yet known: {len(found)} of {wanted} runs.\n"]
    files = sorted(RESULTS.glob("accuracy*.json"))
    document = json.loads(files[0].read_text())
    intro = f"{_facts(document)} {document['data']}; {accuracy.EPOCHS} epoch, five paired seeds."
    return [f"## Does speed cost accuracy?\n\n{intro}\n\n{accuracy.table(found)}\n"]
