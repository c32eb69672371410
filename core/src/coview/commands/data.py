"""What a command says about a data set: images, labels, modes, sizes, what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coview.terminal import shown

if TYPE_CHECKING:
    from coview.data.base import ImageData

MOST = 8
"""Number of classes that are listed with their counts."""


def described(data: ImageData) -> dict[str, Any]:
    """Return a loaded data set as plain values, for JSON."""
    splits = {"train": data.train, "test": data.test, "reference": data.reference}
    return {
        "data": data.name,
        "images": {
            name: len(split)
            for name, split in splits.items()
            if split is not None and not (name == "reference" and split is data.train)
        },
        "classes": list(data.classes),
        "size": data.size,
        "channels": data.channels,
        "mean": list(data.mean),
        "std": list(data.std),
        "fields": list(data.train.fields),
        "fingerprint": data.fingerprint,
        "reading": dict(data.reading),
        "summary": dict(data.summary),
        "bad_images": data.bad_images,
        "notes": list(data.notes),
    }


def told(data: ImageData) -> Iterator[str]:
    """Yield the same in lines for people."""
    facts = described(data)
    counts = ", ".join(f"{count} {name}" for name, count in facts["images"].items())
    yield f"{data.name}: {counts} images of {data.size} pixels, {data.channels} channels"
    summary = data.summary
    labels: Mapping[str, int] = summary.get("labels", {})
    if labels:
        some = [f"{name} {count}" for name, count in list(labels.items())[:MOST]]
        more = [f"and {len(labels) - MOST} more"] if len(labels) > MOST else []
        yield f"  {len(labels)} classes: {', '.join([*some, *more])}"
    elif data.classes:
        yield f"  {len(data.classes)} classes"
    else:
        yield "  no labels"
    if data.train.fields:
        yield f"  fields of every image: {', '.join(map(shown, data.train.fields))}"
    if "found" in summary:
        left = summary["left_out"]
        out = ", ".join(f"{count} {why}" for why, count in left.items()) or "nothing"
        yield f"  {summary['found']} images found; left out: {out}"
    if "modes" in summary:
        modes = ", ".join(f"{count} {mode}" for mode, count in summary["modes"].items())
        smallest, largest = (" x ".join(map(str, summary[n])) for n in ("smallest", "largest"))
        yield f"  of {summary['sampled']} sampled: {modes}; {smallest} to {largest} pixels"
    yield "  " + ", ".join(f"data.{name} = {value}" for name, value in data.reading.items())
    yield from (f"note: {note}" for note in data.notes)
