"""The non-parametric softmax."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import Tensor, nn

from coview.hookspecs import hookimpl
from coview.losses.softmax import softmax_loss
from coview.plan import Plan
from coview.records import Encoded, Negatives, Step, Targets
from coview.schedules import Schedule
from coview.settings import gt, one_of, setting


class NonParametricSoftmax(nn.Module):
    """Classify an image among all rows of the bank (Wu et al. 2018, equation 2).

    With a memory bank that gives every row (``draws = 0``) this is the exact softmax
    over the n images, which the authors use on CIFAR; with draws it is the softmax
    over those and the positive.
    """

    needs = {"negatives": "its softmax runs over the other images' rows"}
    same_space = True

    @attrs.frozen
    class Settings:
        """The paper's values."""

        temperature: float | Schedule = setting(0.07, "divisor of the similarities", gt(0))
        reduction: str = setting("mean", "reduction over pairs of views", one_of("sum", "mean"))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    @hookimpl
    def compute_loss(
        self, encoded: Encoded, targets: Targets, negatives: Sequence[Negatives], step: Step
    ) -> Tensor:
        """Return -log P(i | query), averaged over queries; gradient reaches the queries."""
        temperature = step.read(self.settings.temperature)
        return softmax_loss(
            encoded,
            targets,
            negatives,
            cosine=True,
            temperature=temperature,
            reduction=self.settings.reduction,
        )
