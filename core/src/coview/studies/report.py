"""What a study leaves: a table in Markdown, the numbers in JSON, and a picture."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from coview.errors import CoviewError
from coview.files import write_json, write_text
from coview.studies.jobs import Asked, Job, whole
from coview.studies.study import Study
from coview.studies.verdict import Interval, overall, parted

LIBRARIES = ("coview", "torch", "torchvision", "kornia", "timm")


def document(study: Study, asked: Asked, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return all that is known: the claim, every run's numbers, findings and verdict.

    Seeds that not every variant has finished are left out, and said.

    Raises:
        CoviewError: no seed is complete.
    """
    complete = [seed for seed in asked.seeds if all(j.result for j in jobs if j.seed == seed)]
    if not complete:
        raise CoviewError(
            "No seed is complete yet, so nothing can be compared. Run the same command again: "
            "it goes on where it stopped."
        )
    runs = {variant: _runs(variant, complete, jobs) for variant in study.variants}
    findings = judged(study, runs)
    return {
        "study": asked.name,
        "claim": study.claim,
        "source": study.source,
        "notes": study.notes,
        "verdict": overall(findings),
        "findings": [attrs.asdict(finding) for finding in findings],
        "quick": asked.quick,
        "seeds": complete,
        "left_out": [seed for seed in asked.seeds if seed not in complete],
        "common": study.common.words(),
        "changes": asked.changes.words(),
        "variants": {
            variant: {"changes": study.variants[variant].words(), "runs": runs[variant]}
            for variant in study.variants
        },
        "data": sorted({str(whole(study, v, asked).data) for v in study.variants}),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }


def _runs(variant: str, seeds: Sequence[int], jobs: Sequence[Job]) -> list[dict[str, Any]]:
    found = {job.seed: job for job in jobs if job.variant == variant}
    return [
        {"seed": seed, "run": found[seed].digest, **(found[seed].result or {})} for seed in seeds
    ]


def judged(study: Study, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Any]:
    """Return a finding for each expectation, from runs by variant."""

    def values(term: str) -> list[float]:
        variant, quantity = parted(term)
        return [run["values"][quantity or study.first] for run in runs[variant]]

    return [one.judge(values) for one in study.expect]


def table(study: Study, found: Mapping[str, Any]) -> str:
    """Return the table in Markdown: a row for each variant, means and intervals over seeds."""
    head = ["variant", *(quantity.title for quantity in study.measure.values()), "seconds"]
    lines = [head, ["---"] * len(head)]
    for name, variant in found["variants"].items():
        cells = [cell(study, variant["runs"], key) for key in study.measure]
        seconds = [run["seconds"] for run in variant["runs"]]
        lines.append([name, *cells, f"{sum(seconds) / len(seconds):.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(study: Study, runs: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return a mean over seeds, with the half width of its interval where there are several."""
    quantity, interval = study.measure[key], Interval.of([run["values"][key] for run in runs])
    half = quantity.said(interval.high - interval.mean)
    return quantity.said(interval.mean) + (f" ± {half}" if len(runs) > 1 else "")


def page(study: Study, found: Mapping[str, Any]) -> str:
    """Return the whole report in Markdown."""
    count = len(found["seeds"])
    lines = [
        f"**Claim.** {study.claim} ({study.source})",
        "",
        f"**Verdict: {found['verdict']}**, on {', '.join(found['data'])}, "
        f"{count} {'seed' if count == 1 else 'seeds'}"
        + (", in its quick form: its verdict means little" if found["quick"] else "")
        + ".",
        "",
        *(
            f"- {finding['verdict']}: {finding['rule']} {_said(finding)}"
            for finding in found["findings"]
        ),
        "",
        table(study, found),
        "",
        f"All runs: {found['common']}."
        + (f" Changed: {found['changes']}." if found["changes"] else ""),
    ]
    if found["left_out"]:
        lines += ["", f"Left out, not complete: seeds {', '.join(map(str, found['left_out']))}."]
    if study.notes:
        lines += ["", study.notes]
    return "\n".join(lines) + "\n"


def _said(finding: Mapping[str, Any]) -> str:
    difference = finding["difference"]
    return (
        f"(difference {difference['mean']:+.3f}, 95 % interval {difference['low']:+.3f} to "
        f"{difference['high']:+.3f})"
    )


def write(study: Study, found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the report, the numbers and, if matplotlib is there, the picture; return the files."""
    stem = folder / found["study"].replace("/", "-").replace(":", "-").replace(".py", "")
    files = [stem.with_name(stem.name + ending) for ending in (".json", ".md", ".svg")]
    write_json(files[0], found)
    write_text(files[1], page(study, found))
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return files[:2]
    from coview.studies.picture import draw

    draw(study, found, files[2])
    return files
