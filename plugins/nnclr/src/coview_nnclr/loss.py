"""NNCLR's loss: which of the batch's predictions belongs to a key?"""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from coview.components import Guard
from coview.distributed import gather
from coview.hookspecs import hookimpl
from coview.losses.softmax import softmax_loss
from coview.plan import Plan
from coview.records import Encoded, Negatives, Step, Targets
from coview.schedules import Schedule
from coview.settings import gt, setting


class NeighbourNCE(nn.Module):
    """InfoNCE with the sides exchanged (Dwibedi et al. 2021).

    For each key, which in NNCLR is the nearest neighbour of a view, the prediction of the
    other view is to be recognised among the predictions of all images of the batch, of that
    view and of all processes. The other direction, to recognise the key among all keys, is the
    loss ``info-nce`` with negatives ``in-batch``, and the two can be summed.
    """

    ignores = ("negatives",)
    same_space = True

    @attrs.frozen
    class Settings:
        """The paper's value."""

        temperature: float | Schedule = setting(0.1, "divisor of the cosines", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    def guards(self) -> list[Guard]:
        """Return the safeguard: the other images."""
        return [Guard("the batch's other images as negatives", True)]

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets, step: Step) -> Tensor:
        """Return the mean over keys and pairs; gradient reaches every process's predictions."""
        pairs = tuple((key, query) for query, key in encoded.pairs)
        asked = Encoded(targets.keys, targets.keys, targets.identities, pairs, {})
        answers = Targets(encoded.queries, encoded.identities)
        others = Negatives(
            {slot: gather(rows) for slot, rows in encoded.queries.items()},
            {slot: gather(rows) for slot, rows in encoded.identities.items()},
        )
        temperature = step.read(self.settings.temperature)
        return softmax_loss(asked, answers, [others], cosine=True, temperature=temperature)
