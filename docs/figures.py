"""docs/benchmarks.md, from the raw figures in benchmarks/results/.

Every result file has the facts of its run (command, date, device, versions) and,
somewhere inside, paired ratios as ``benchmarks/runner.compared`` gives
them. They are found wherever they are, so a new benchmark needs nothing here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Checks that methods learn, with tables of their own elsewhere.
ELSEWHERE = ("accuracy", "collapse", "digits", "digits-fused", "soak", "variants")
HEAD = """# Benchmarks

Generated from `benchmarks/results/` by `python docs/generate.py`; `nox -s "benchmark(NAME)"`
measures one again. A ratio is the median over pairs of rounds that ran one after the other, with
the 95 % interval of that median: below 1, what stands first is the faster (or smaller) one.
Absolute times on a shared machine mean little and are left to the raw files.

{gpu}
"""
NO_GPU = (
    "**Not yet measured on a GPU.** `python -m benchmarks gpu` measures everything on one, in a "
    "call of under nine minutes, and its figures then stand here."
)
INTRODUCTIONS = {
    "overhead": (
        "The engine's own step, and the same with records checked in every step and not only in "
        "the first; beside it the step of the revision from before records had fields, several "
        "losses, wrappers and checks. Networks are so small that all else shows."
    ),
    "data-before": (
        "The same images read by this revision and by the one from before data were read as they "
        "lie on disks, each in a process of its own. Two processes of one revision differ as "
        "much: packed images beside themselves gave 0.975 to 0.995 in three runs of 21 rounds, "
        "and beside that revision 0.979 to 0.998."
    ),
    "overhead-triton": (
        "The same steps beside those of the revision before Triton's kernels were added, which "
        "changed how the standard views are put together: no slower on a processor."
    ),
    "public-views": (
        "The standard views at 32 pixels through the public API beside lightly's own transform "
        "without workers, at three hours and on two kinds of machine (the raw file says which)."
    ),
    "step": (
        "A whole training step over forward and backward of its own networks alone, on views made "
        "beforehand, in the same layout and grouping of batch normalisation; lightly's loop, whose "
        "views come from two worker processes, beside its own. Views are fused and bilinear, "
        "lightly's Pillow's; nothing is compiled. MoCo's queues have 65536 keys. A step that takes "
        "less than its bare step is noise."
    ),
    "step-operations": (
        "Operations that a step dispatches, and those of forward and backward of its networks "
        "alone, eager and with `--compile`, where a compiled loop counts as one; views of a tensor "
        "and memory count as none. Host waits: how often a step would wait for the device."
    ),
    "scaling": (
        "One size grows by factors of four, all else stays. An exponent is the slope of log(time), "
        "or log(memory), against log(size) over the largest three sizes: 1 is proportional, 0 does "
        "not depend on it. A range is theory's where two parts grow differently; one below theory "
        "means that a part that does not grow still counts at these sizes. Times are the median "
        "of rounds; memory is counted. *Beyond* leaves out the smallest size's time, the "
        "part that does not grow. Small sets whose rows fit a processor's caches are read faster, "
        "which shows as a little more than 0 where a step reads rows of a set at random."
    ),
    "memory": (
        "The most that torch holds within a step, beyond what is kept between steps (weights, "
        "target, queue or bank, optimiser's state), and the same of forward and backward of the "
        "networks alone, on views made beforehand. MoCo's queue has 65536 keys. lightly's loops "
        "get their views from other processes, whose memory is not counted."
    ),
    "whole": (
        "Two crops of 224 pixels and flips from JPEG files of 500 x 375: time beside torchvision's "
        "`DataLoader` with the same crops and as many workers. **A first, short run on a busy "
        "machine** (load 9.6 on two cores; the start of the workers is most of it), to be measured "
        "again."
    ),
}
GPU_PARTS = {
    "host synchronisations": "How often the host waits for the device within a step; 0 is wanted.",
    "step": (
        "The whole step over forward and backward of its networks alone, and the views' share of "
        "it; images a second beside what operations and memory traffic of the bare step allow. "
        "Traffic is that of its operations one by one: compiled code may do with less."
    ),
    "kernels": "Kernels that the device is given in a step, and in the bare one.",
    "memory": "As in the section *memory*, on the device.",
}
KEYS = {"of", "to", "median", "interval_95"}


def text() -> str:
    """Return the whole page."""
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    on_gpu = [document for document in documents.values() if document.get("table") == "gpu"]
    parts = [HEAD.format(gpu="" if on_gpu else NO_GPU).rstrip() + "\n"]
    parts += [_gpu(document) for document in on_gpu]
    for name, document in documents.items():
        if name not in ELSEWHERE and document not in on_gpu:
            parts.append(_section(name, document))
    parts += _accuracy()
    return "\n".join(parts)


def _section(name: str, document: Mapping[str, Any]) -> str:
    about = " ".join(filter(None, (INTRODUCTIONS.get(name), _sentence(document.get("design")))))
    lines = [f"## {name}", "", _facts(document), "", *([about, ""] if about else [])]
    return "\n".join([*lines, *_tables(document)])


def _sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def _tables(document: Mapping[str, Any]) -> list[str]:
    lines = []
    ratios = list(_ratios(document, ()))
    if ratios:
        lines += ["| what | ratio | median | 95 % interval | pairs |", "|---|---|---|---|---|"]
        lines += [_row(path, ratio) for path, ratio in ratios]
        lines.append("")
    return [*lines, *_numbers(document)]


def _gpu(document: Mapping[str, Any]) -> str:
    """Return the table of one GPU, part by part, with what could not be measured and why."""
    lines = [f"## On a GPU: {document['device']}", "", _facts(document), ""]
    sheet, reached = document.get("data_sheet"), document.get("reached") or {}
    if sheet:
        lines += [
            f"Peak by its data sheet: {sheet['flops'] / 1e12:g} TFLOP/s in dense bfloat16 and "
            f"{sheet['bandwidth'] / 1e12:g} TB/s ({sheet['source']}); bounds below are by these.",
            "",
        ]
    if reached:
        said = "; ".join(f"{what} {value}" for what, value in reached.items())
        lines += [f"Reached in the same run by one operation: {said}.", ""]
    for name, part in document["parts"].items():
        about = GPU_PARTS.get(name, "")
        lines += [f"### {name}", "", *([about, ""] if about else []), *_tables(part)]
        if part["missing"]:
            lines += ["Not measured:", ""]
            lines += [f"- {row}: {why}" for row, why in part["missing"].items()]
            lines.append("")
    return "\n".join(lines)


def _facts(document: Mapping[str, Any]) -> str:
    versions = document.get("libraries") or document.get("versions") or {}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    said = [
        f"`{_today(document['command'])}`" if "command" in document else "",
        str(document.get("device", "")),
        f"{document['threads']} threads" if "threads" in document else "",
        str(document.get("date", "")),
        listed,
    ]
    return "; ".join(part for part in said if part) + "."


def _today(command: str) -> str:
    """Return what does today what a command did when each benchmark was a script."""
    return re.sub(r"benchmarks/(\w+)\.py", r"-m benchmarks \1", command)


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
    where = ratio.get("row") or ", ".join(part for part in path if part not in noise)
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
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import accuracy
    finally:
        sys.path.remove(str(ROOT))

    document = accuracy.runner.document(accuracy.NAME)
    if not document:
        return []
    found = document["runs"]
    wanted = len(accuracy.OWN) * len(accuracy.BACKENDS) * len(accuracy.SEEDS)
    if len(found) < wanted:
        return [f"## Does speed cost accuracy?\n\nNot yet known: {len(found)} of {wanted} runs.\n"]
    intro = f"{_facts(document)} {document['data']}; {accuracy.EPOCHS} epochs, five paired seeds."
    parts = ["## Does speed cost accuracy?", f"{intro} {accuracy.ABOUT}", accuracy.table(found)]
    return ["\n\n".join(parts) + "\n"]
