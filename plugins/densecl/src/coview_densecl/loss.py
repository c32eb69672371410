"""InfoNCE over images and over places, with a weight."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.softmax import softmax_loss
from coview.plan import Plan
from coview.records import Encoded, Negatives, Step, Targets
from coview.schedules import Schedule
from coview.settings import between, gt, setting


class DenseInfoNCE(nn.Module):
    """The sum (1 - w) L(images) + w L(places) of two InfoNCE (Wang et al. 2021, equation 4).

    Each is a mean over its rows, of images or places; the encoder's slots say which rows are
    which, and the negatives are those of the same slot. Both are logged (``loss_image`` and
    ``loss_place``).
    """

    needs = {"negatives": "it compares the positive with them"}
    same_space = True

    @attrs.frozen
    class Settings:
        """The paper's values."""

        temperature: float | Schedule = setting(0.2, "divisor of the similarities", gt(0))
        dense_weight: float | Schedule = setting(
            0.5, "weight of places; that of images is one minus it", between(0, 1)
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        kinds = dict.fromkeys(plan.slots.values())
        if len(kinds) != 2:
            raise RequestError(
                "loss 'dense-info-nce' needs an encoder that compares images and places, but this "
                f"one compares {', '.join(kinds) or 'images'} only: use --use encoder=dense, or "
                "--use loss=info-nce."
            )
        self.settings, self._image = settings, next(iter(kinds))
        self._slots = plan.slots

    @hookimpl
    def compute_loss(
        self, encoded: Encoded, targets: Targets, negatives: Sequence[Negatives], step: Step
    ) -> Tensor:
        """Return the weighted sum; gradient reaches everything that requires it."""
        temperature = step.read(self.settings.temperature)
        share = step.read(self.settings.dense_weight)
        losses = []
        for image in (True, False):
            pairs = [p for p in encoded.pairs if (self._slots[p[1]] == self._image) is image]
            some = attrs.evolve(encoded, pairs=tuple(pairs))
            loss = softmax_loss(some, targets, negatives, cosine=True, temperature=temperature)
            step.log("loss_image" if image else "loss_place", loss)
            losses.append(loss)
        return (1 - share) * losses[0] + share * losses[1]
