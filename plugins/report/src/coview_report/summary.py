"""A run in words and numbers: what came first in the page because it is asked first."""

from __future__ import annotations

from typing import Any

import attrs

from coview.evaluation.chance import margin
from coview.evaluation.sentences import sentence
from coview.evaluation.verdict import BASELINES, compared
from coview_report.reading import RunFiles


@attrs.frozen
class Bar:
    """An accuracy: its label, its share from 0 to 1, and how far chance reaches either way."""

    label: str
    share: float
    chance: float | None = None
    own: bool = False


@attrs.frozen
class Summary:
    """What is told of a run first.

    Attributes:
        headline: the verdict in a few words.
        tone: ``good``, ``bad`` or ``open``, for its colour.
        sentences: the verdict with its numbers, and warnings.
        bars: kNN accuracies.
        protocol: how they were measured.
        evaluations: further evaluations, a sentence each.
        facts: name and value of what is said beside the title.
    """

    headline: str
    tone: str
    sentences: tuple[str, ...]
    bars: tuple[Bar, ...]
    protocol: str
    evaluations: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def summary(run: RunFiles, state: str) -> Summary:
    """Return what is told of a run first.

    Args:
        state: ``finished``, ``running``, ``interrupted`` or ``failed``.
    """
    share, measured = run.value("knn_top1"), run.value("knn") or {}
    images = measured.get("test_images")
    before = {label: run.value(metric) for metric, label in BASELINES.items()}
    before = {label: value for label, value in before.items() if value is not None}
    sentences = []
    if share is not None and images:
        sentences = [compared(share, other, label, images) for label, other in before.items()]
    warnings = [str(entry["warning"]) for entry in run.metrics if "warning" in entry]
    headline, tone = _headline(run, state, share, before, images, bool(warnings))
    bars = [Bar(label, value, _chance(value, images)) for label, value in before.items()]
    if share is not None:
        bars.append(Bar("trained network", share, _chance(share, images), own=True))
    return Summary(
        headline,
        tone,
        (*sentences, *warnings),
        tuple(bars),
        _protocol(measured),
        tuple(_told(row) for row in run.evaluations if row.get("knn") is None and "time" in row),
        tuple(_facts(run, state)),
    )


def _headline(
    run: RunFiles,
    state: str,
    share: float | None,
    before: dict[str, float],
    images: int | None,
    collapsed: bool,
) -> tuple[str, str]:
    if state != "finished":
        words = {
            "running": "Still training",
            "failed": "The run failed before its end",
            "interrupted": "Stopped before its end",
        }
        return words.get(state, state), "bad" if state == "failed" else "open"
    if collapsed:
        return "The embeddings collapsed", "bad"
    if share is None or not before or not images:
        return "Finished; no accuracy was measured", "open"
    better = [share - other > margin(share, other, images) for other in before.values()]
    worse = [other - share > margin(share, other, images) for other in before.values()]
    if all(better):
        return "It learned: better than " + _both(before), "good"
    if any(worse):
        lost = [label for label, w in zip(before, worse, strict=True) if w]
        return "Worse than " + _both(lost), "bad"
    return "Not clearly better than " + _both(
        [label for label, b in zip(before, better, strict=True) if not b]
    ), "open"


def _both(labels: Any) -> str:
    the = {"untrained network": "the untrained network"}
    return " and ".join(the.get(label, label) for label in labels)


def _chance(share: float, images: int | None) -> float | None:
    """Return half of the 95 % interval of a share."""
    return None if not images else margin(share, share, images) / 2**0.5


def _protocol(measured: dict[str, Any]) -> str:
    if not measured:
        return ""
    parts = [str(measured.get("protocol", "kNN")), f"k = {measured.get('k')}"]
    if measured.get("temperature") is not None:
        parts.append(f"temperature {measured['temperature']}")
    return f"{', '.join(parts)}; {measured.get('test_images'):,} test images"


def _told(row: dict[str, Any]) -> str:
    try:
        return sentence(row["evaluation"], row)
    except (KeyError, TypeError, ValueError):
        return str(row.get("evaluation", "an evaluation"))


def _facts(run: RunFiles, state: str) -> list[tuple[str, str]]:
    found = [("state", state)]
    last = run.metrics[-1] if run.metrics else {}
    planned = run.recipe.get("epochs")
    if "epoch" in last:
        whole = f" of {planned}" if planned is not None and last["epoch"] < planned else ""
        found.append(("epochs", f"{round(last['epoch'], 2):g}{whole}"))
    if "step" in last:
        found.append(("steps", f"{last['step']:,}"))
    count = run.facts.get("data", {}).get("train_images")
    if count is not None:
        found.append(("training images", f"{count:,}"))
    if run.seconds is not None:
        found.append(("time", duration(run.seconds)))
    if "device" in run.facts:
        found.append(("device", str(run.facts["device"])))
    if run.facts.get("started"):
        found.append(("started", str(run.facts["started"])[:16].replace("T", " ")))
    return found


def duration(seconds: float) -> str:
    """Return a time in words: ``1 h 20 min``, ``3 min 5 s``, ``12 s``."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
