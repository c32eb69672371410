"""The regression loss: predicting the target's projection."""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from coview.hookspecs import hookimpl
from coview.losses.similarity import reduced, unit
from coview.nn.compile import compilable
from coview.plan import Plan
from coview.records import Encoded, Targets
from coview.settings import one_of, setting


class Regression(nn.Module):
    """Squared distance of unit vectors (Grill et al. 2020, equation 2).

    2 - 2 cos(prediction, key), averaged over rows and summed over pairs: 0 to 8
    for the two directions of two views. With ``form = "negative-cosine"`` and
    ``reduction = "mean"`` it is SimSiam's loss L (Chen & He 2021, equation 2),
    -1 to 1; BYOL's sum of two directions on the same vectors is 4 + 4 L.
    """

    ignores = ("negatives",)
    same_space = True

    @attrs.frozen
    class Settings:
        """The paper's form."""

        form: str = setting(
            "squared-distance",
            "squared-distance: 2 - 2 cos (BYOL); negative-cosine: -cos (SimSiam)",
            one_of("squared-distance", "negative-cosine"),
        )
        reduction: str = setting("sum", "reduction over pairs of views", one_of("sum", "mean"))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Return the loss; gradient reaches the queries, and the keys if the target allows it."""
        return _loss(encoded, targets, self.settings.form, self.settings.reduction)


@compilable()
def _loss(encoded: Encoded, targets: Targets, form: str, reduction: str) -> Tensor:
    cosines = [
        (unit(encoded.queries[q]) * unit(targets.keys[k])).sum(-1).mean() for q, k in encoded.pairs
    ]
    if form == "negative-cosine":
        return -reduced(cosines, reduction)
    return reduced([2 - 2 * cosine for cosine in cosines], reduction)
