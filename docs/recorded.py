"""docs/studies.md, and the README's table of all methods, from the recorded studies.

``coview study run NAME --out FOLDER`` writes NAME.json and NAME.svg; copied to docs/studies/, they
are recorded. The claim, the rule and the notes come from the study as it is installed;
`tests/test_recorded.py` holds that both are still the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coview.registry import entries
from coview.studies import find_study
from coview.studies.report import page
from coview.studies.verdict import Interval

FOLDER = Path(__file__).resolve().parent / "studies"
EXAMPLE = FOLDER.parent / "example_study.py"
SETS = {"methods/moved-digits": "moved digits", "methods/fashion-mnist": "Fashion-MNIST"}
ABOUT = {
    "methods/moved-digits": "`moved-digits` are 4,314 handwritten digits, each drawn at a random "
    "place and in a random size, which raw pixels and an untrained network recognise badly. Views "
    "are not mirrored (`--set views.flip_p=0.0`): a mirrored digit is another sign.",
    "methods/fashion-mnist": "Fashion-MNIST has 60,000 centred clothes, for which raw pixels alone "
    "do well.",
}
INTRODUCTION = """kNN top-1 in per cent (weighted, k = 200, vote temperature 0.07) on images that
were not trained on: the mean over {seeds} seeds and its 95 % interval. Each method trains its
preset `tiny`, for a network of 0.3 million parameters and minutes on a processor; CPC and CMC have
two or more such networks, or another. So this shows that they learn, and does not rank them.
{about}
"""
RIVALS = "[docs/rivals.md](docs/rivals.md) has the same methods in other libraries.\n"
HEAD = """# Studies: papers' claims, tested on a small scale

Generated from `docs/studies/` by `python docs/generate.py`. A study trains the variants that a
paper compares, with several seeds each, and judges by a rule that stood in the code before the runs
did: an expectation is *supported* if the 95 % interval of the difference (Student's t, the seeds
paired) is on its side of the threshold, *not supported* if it is wholly on the other, and
*inconclusive* in between. A claim that fails here has failed here: with a network of 0.3 million
parameters, some thousand images and minutes on a processor, where papers have ImageNet and weeks.

`coview study list` lists all {installed} that are installed; `coview study run NAME` repeats one,
and goes on where it was interrupted. {how}
"""


OWN = """## A study of your own

It is plain data, in a file or in a package:

```python
{example}```

`coview study run FILE.py:longer` runs it: each variant with each seed, in processes of their own,
variants that are the same once. `--budget 10m` begins no new run after ten minutes, and the same
command goes on. A package registers its studies like everything else, and `coview study list` has
them:

```toml
[project.entry-points."coview.studies"]
"my-method/longer" = "my_package.studies:longer"
```

[`Study`](../core/src/coview/studies/study.py) says what else there is: other quantities than kNN
(any function of a finished run), grids, a short form; and
[`verdict.py`](../core/src/coview/studies/verdict.py) how `Above` and `Alike` are judged.
"""


def recorded() -> dict[str, Mapping[str, Any]]:
    """Return the recorded documents by the study's name."""
    texts = (path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json"))
    documents = sorted((json.loads(text) for text in texts), key=lambda one: one["study"])
    return {document["study"]: document for document in documents}


def text() -> str:
    """Return docs/studies.md."""
    documents = recorded()
    studies = {name: find_study(name) for name in documents}
    installed = len(list(entries("studies")))
    parts = [HEAD.format(installed=installed, how=_how(documents)), _summary(documents)]
    for name, document in documents.items():
        picture = f"![{name}](studies/{name.replace('/', '-')}.svg)"
        parts.append(f"## {name}\n\n{page(studies[name], document)}\n{picture}\n")
    parts.append(OWN.format(example=EXAMPLE.read_text(encoding="utf-8")))
    return "\n".join(parts)


def _how(documents: Mapping[str, Mapping[str, Any]]) -> str:
    machines = sorted({document["machine"] for document in documents.values()})
    torches = sorted({document["versions"]["torch"] for document in documents.values()})
    return f"These were recorded on {', '.join(machines)}, with torch {', '.join(torches)}."


def _summary(documents: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| study | claim | verdict | expectations |", "| --- | --- | --- | --- |"]
    for name, document in documents.items():
        held = sum(finding["verdict"] == "supported" for finding in document["findings"])
        link = f"[{name}](#{name.replace('/', '')})"
        counted = f"{held} of {len(document['findings'])} supported"
        lines.append(f"| {link} | {document['claim']} | {document['verdict']} | {counted} |")
    return "\n".join(lines) + "\n"


def methods() -> str:
    """Return the README's words and table on all methods; ``""`` while nothing is recorded."""
    found = {name: one for name, one in recorded().items() if name in SETS}
    parts = []
    if found:
        about = " ".join(ABOUT[name] for name in SETS if name in found)
        variants = next(iter(found.values()))["variants"]
        seeds = len(next(iter(variants.values()))["runs"])
        again = " and ".join(f"`coview study run {name}`" for name in SETS if name in found)
        parts = [
            INTRODUCTION.format(seeds=seeds, about=about),
            table(found),
            f"{again} measure{'' if len(found) > 1 else 's'} it again.\n",
        ]
    if "nothing yet" not in (FOLDER.parent / "rivals.md").read_text(encoding="utf-8"):
        parts.append(RIVALS)
    return "".join(f"{part}\n" for part in parts)


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row for every method: means with intervals, and lowest seeds, on each set."""
    documents = {title: found[name] for name, title in SETS.items() if name in found}
    head = ["method"]
    for title in documents:
        head += [f"{title}: trained", "lowest seed", "untrained"]
    lines = [head, ["---"] * len(head), ["raw pixels"]]
    for document in documents.values():
        lines[-1] += [_cell(document, next(iter(document["variants"])), "raw")[0], "", ""]
    for method in dict.fromkeys(name for one in documents.values() for name in one["variants"]):
        lines.append([method])
        for document in documents.values():
            untrained, _ = _cell(document, method, "untrained")
            lines[-1] += [*_cell(document, method, "knn"), untrained]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(document: Mapping[str, Any], method: str, key: str) -> tuple[str, str]:
    """Return the mean with half its interval, where seeds differ, and the lowest seed."""
    values = [100 * run["values"][key] for run in document["variants"][method]["runs"]]
    interval = Interval.of(values)
    half = f" ± {interval.high - interval.mean:.1f}" if len(set(values)) > 1 else ""
    return f"{interval.mean:.1f}{half}", f"{min(values):.1f}"
