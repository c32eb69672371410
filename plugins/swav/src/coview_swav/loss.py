"""The swapped-prediction loss."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, nn

from coview.components import Guard
from coview.hookspecs import hookimpl
from coview.losses.assignments import log_assignments
from coview.losses.similarity import reduced, shared_vectors, soft_cross_entropies
from coview.nn.encoder import Encoder
from coview.plan import Plan
from coview.records import Encoded, Negatives, Step, Targets
from coview.schedules import Schedule
from coview.settings import ge, gt, one_of, setting
from coview_swav.sinkhorn import sinkhorn


class SwappedPrediction(nn.Module):
    """Predict the code of one view from another (Caron et al. 2020, equations 1 to 3).

    The keys are scored by the encoder's current prototypes (``predict``) and turned
    into codes by a balanced assignment over the global batch. Vectors from the
    negatives role, if any, do not act as negatives: they are scored too and take
    part in the balance (the support queue). The loss is the cross-entropy of the
    code and the softmax of the query's scores.

    If the encoder has no prototypes, its projections are the scores: with DINO's
    head and a momentum target this is DINO with Sinkhorn codes.
    """

    constant_keys = True

    @attrs.frozen
    class Settings:
        """The paper's values."""

        temperature: float | Schedule = setting(0.1, "divisor of the scores", gt(0))
        epsilon: float = setting(0.05, "weight of the codes' entropy", gt(0))
        iterations: int = setting(3, "iterations of the balanced assignment", ge(1))
        reduction: str = setting("mean", "reduction over pairs of views", one_of("mean", "sum"))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    def guards(self) -> list[Guard]:
        """Return the safeguard: the balance of the codes."""
        return [Guard("a balanced assignment", True)]

    @hookimpl
    def compute_loss(
        self,
        encoder: Encoder,
        encoded: Encoded,
        targets: Targets,
        negatives: Sequence[Negatives],
        step: Step,
    ) -> Tensor:
        """Return the loss; the codes are constants, and gradient reaches the queries' scores."""
        temperature = step.read(self.settings.temperature)
        codes = self._codes(encoder, targets, negatives)
        terms = soft_cross_entropies(encoded.queries, codes, encoded.pairs, temperature)
        keys = (key for _, key in encoded.pairs)
        log_assignments(step, codes, zip(keys, terms, strict=True))
        return reduced(terms, self.settings.reduction)

    @torch.no_grad()
    def _codes(
        self, encoder: Encoder, targets: Targets, negatives: Sequence[Negatives]
    ) -> dict[int, Tensor]:
        """Return a code (N, K) for every key."""
        epsilon, iterations = self.settings.epsilon, self.settings.iterations
        codes = {}
        for slot, scores in encoder.predict(targets.keys).items():
            given = [shared_vectors(part, slot) for part in negatives]
            others = [encoder.predict({slot: vectors})[slot] for vectors in given]
            support = torch.cat(others) if others else None
            codes[slot] = sinkhorn(scores, support, epsilon, iterations)
        return codes
