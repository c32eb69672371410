"""Studies: papers' claims as experiments with verdicts. Plain data; nothing here loads torch."""

from coview.studies.study import (
    KNN,
    RAW_PIXELS,
    UNTRAINED,
    Quantity,
    Study,
    Variant,
    find_study,
)
from coview.studies.verdict import Above, Alike

__all__ = [
    "KNN",
    "RAW_PIXELS",
    "UNTRAINED",
    "Above",
    "Alike",
    "Quantity",
    "Study",
    "Variant",
    "find_study",
]
