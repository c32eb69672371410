"""InfoNCE: recognise the positive among all candidates."""

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


class InfoNCE(nn.Module):
    """Cross-entropy of the positive among all candidates (van den Oord et al. 2018, equation 4).

    The candidates are the positive and every negative that is not of the query's
    own image: with in-batch negatives of all views this is SimCLR's NT-Xent, with a
    queue it is MoCo's loss. CPC compares by dot product at temperature 1
    (``cosine = false, temperature = 1``); later methods compare by cosine, which is
    the default here.
    """

    needs = {"negatives": "it compares the positive with them"}
    same_space = True

    @attrs.frozen
    class Settings:
        """Temperature and form of the loss."""

        temperature: float | Schedule = setting(0.1, "divisor of the similarities", gt(0))
        cosine: bool = setting(True, "compare by cosine instead of dot product")
        reduction: str = setting("mean", "reduction over pairs of views", one_of("mean", "sum"))
        scale: str = setting(
            "none",
            "factor of the loss: none, or 2-temperature: twice the temperature, so that gradients "
            "keep their size when the temperature changes (MoCo v3)",
            one_of("none", "2-temperature"),
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    @hookimpl
    def compute_loss(
        self, encoded: Encoded, targets: Targets, negatives: Sequence[Negatives], step: Step
    ) -> Tensor:
        """Return the mean over queries; gradient reaches everything that requires it."""
        temperature = step.read(self.settings.temperature)
        loss = softmax_loss(
            encoded,
            targets,
            negatives,
            cosine=self.settings.cosine,
            temperature=temperature,
            reduction=self.settings.reduction,
        )
        return loss if self.settings.scale == "none" else loss * (2 * temperature)
