"""Labels as people write them into lists of files: one class, several, or something else."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from coview.data.sources.targets import multi_hot


def classes_of(labels: Sequence[Any]) -> list[Any]:
    """Return the classes of each image, None where nothing is known; empty: they have one each.

    Several are written as a list, as the text of one, or with | or ; between them.
    """
    known = [label for label in labels if label is not None]
    if any(isinstance(_written(label), list) for label in known):
        labels = [_written(label) for label in labels]
    elif any(re.search(r"[|;]", label) for label in known if isinstance(label, str)):
        labels = [label if label is None else _divided(label) for label in labels]
    known = [label for label in labels if label is not None]
    lists = bool(known) and all(isinstance(label, (list, tuple)) for label in known)
    return list(labels) if lists and multi_hot(known) is not None else []


def _written(label: Any) -> Any:
    """Return the list or dict that a text such as ``['cat', 'dog']`` is of; others as they are."""
    if not isinstance(label, str) or not re.fullmatch(r"\[.*\]|\{.*\}", label):
        return label
    try:
        return ast.literal_eval(label)
    except (ValueError, SyntaxError):
        return label


def _divided(label: Any) -> list[str]:
    return [name for part in re.split(r"[|;]", str(label)) if (name := part.strip())]


def why_not_classes(labels: Sequence[Any]) -> str:
    """Return why labels are not one class each, in a sentence; empty if they are."""
    used = "Nothing can be measured with them."
    if any(isinstance(_written(label), (list, dict, tuple)) for label in labels):
        return f"The labels are lists or tables of something else than classes. {used}"
    numbers = [as_number(label) for label in labels]
    if None not in numbers and any(not n.is_integer() for n in numbers if n is not None):
        return f"The labels are numbers, not classes ({labels[0]}, ...). {used}"
    if len({str(label) for label in labels}) == 1:
        return "There is only one class, so the images count as unlabelled."
    return ""


def as_number(label: Any) -> float | None:
    """Return a label as a number; None: it is none."""
    try:
        return float(label)
    except (TypeError, ValueError):
        return None
