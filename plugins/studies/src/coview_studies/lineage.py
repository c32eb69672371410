"""From InstDisc to DINO, one change at a time, without leaving one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from coview.studies import KNN, UNTRAINED, Above, Study, Variant

__all__ = ["one_change_at_a_time"]

BUDGET = 192
"""Passes of every training image through a network, which all steps spend."""


@attrs.frozen
class Step:
    """A step: what it is called, what it exchanges, and what an image costs after it.

    Attributes:
        cost: passes of an image in an epoch: for each view, one forward and, at twice the
            price, one backward where there is a gradient.
    """

    name: str
    cost: int
    use: Mapping[str, str] = attrs.field(factory=dict)
    set: Mapping[str, Any] = attrs.field(factory=dict)


MOMENTUM = {"target.decay": 0.99}
STEPS = (
    Step("InstDisc", 3),
    # The bank's rows become the keys of a slow copy of the network, kept for a while.
    Step(
        "MoCo",
        4,
        {"target": "momentum", "negatives": "queue", "loss": "info-nce"},
        {**MOMENTUM, "views.count": 2, "negatives.size": 1024, "loss.temperature": 0.1},
    ),
    Step(
        "MoCo v2",
        4,
        {"encoder": "predictor"},
        {"encoder.dim": 128, "encoder.hidden": 512, "encoder.predictor": False},
    ),
    # Neither copy nor queue: the batch's other images, with gradient, and both ways.
    Step("SimCLR", 6, {"target": "shared", "negatives": "in-batch"}, {"views.symmetric": True}),
    Step(
        "MoCo v3",
        8,
        {"target": "momentum"},
        {
            **MOMENTUM,
            "negatives.views": "key",
            "encoder.predictor": True,
            "encoder.predictor_hidden": 512,
        },
    ),
    Step("BYOL", 8, {"negatives": "none", "loss": "regression"}),
    Step("SimSiam", 6, {"target": "stop-gradient"}),
    Step(
        "SwAV",
        6,
        {"encoder": "prototypes", "loss": "swapped-prediction"},
        {"encoder.hidden": 512, "encoder.prototypes": 128, "encoder.freeze_steps": 33},
    ),
    Step(
        "DINO",
        8,
        {"encoder": "dino", "target": "momentum", "loss": "self-distillation"},
        {
            **MOMENTUM,
            "encoder.dim": 256,
            "encoder.hidden": 512,
            "encoder.layers": 2,
            "encoder.norm": "batch",
        },
    ),
)


def chain(steps: tuple[Step, ...]) -> dict[str, Variant]:
    """Return every step's variant: the one before it, with its changes laid over it."""
    use: dict[str, str] = {}
    settings: dict[str, Any] = {}
    made = {}
    for step in steps:
        # A component that goes takes its settings with it.
        settings = {k: v for k, v in settings.items() if k.partition(".")[0] not in step.use}
        use, settings = {**use, **step.use}, {**settings, **step.set}
        made[step.name] = Variant(epochs=BUDGET // step.cost, use=use, set=settings)
    return made


one_change_at_a_time = Study(
    claim=(
        "InstDisc becomes DINO by exchanging one part at a time; what every step gives learns, and "
        "the last is better than the first"
    ),
    source=(
        "the papers' own comparisons: arXiv:1911.05722, section 3; arXiv:2003.04297, table 1; "
        "arXiv:2011.10566, section 6; arXiv:2104.14294, table 7"
    ),
    common=Variant(
        method="instdisc",
        preset="tiny",
        data="moved-digits",
        set={"views.flip_p": 0.0, "optimizer.lr": 0.005},
    ),
    variants=chain(STEPS),
    expect=(
        *(Above(step.name, f"{step.name}:untrained") for step in STEPS),
        Above("DINO", "InstDisc"),
    ),
    measure={"knn": KNN, "untrained": UNTRAINED},
    notes=(
        "A step has its name from the method whose mechanism it reaches, but not that method's "
        "other settings: all steps share InstDisc's views, a ResNet-10, AdamW at one learning rate "
        "and a batch of 128, and the network that is trained is the one that is evaluated. Compute "
        "is equal by count: a view costs 1 forward, and 2 more where there is a gradient, so "
        "InstDisc's 64 epochs are DINO's 24. A part sometimes cannot be exchanged alone: keys of "
        "the network itself leave MoCo's queue without a reason."
    ),
    quick=Variant(epochs=1),
)
