"""The triplet loss."""

import attrs
import torch
from torch import nn

from coview import Plan, hookimpl, setting
from coview.losses.similarity import candidates
from coview.settings import gt


class Triplet(nn.Module):
    """Hinge loss against the hardest negative, compared by cosine."""

    needs = {"negatives": "it compares each positive with the hardest of them"}

    @attrs.frozen
    class Settings:
        """The paper's value."""

        margin: float = setting(0.2, "how much closer the positive must be", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.margin = settings.margin

    @hookimpl
    def compute_loss(self, encoded, targets, negatives):
        """Return the mean over queries and pairs."""
        terms = []
        for positive, others in candidates(encoded, targets, negatives, cosine=True):
            hardest = torch.cat(others, dim=-1).amax(dim=-1)
            terms.append((self.margin + hardest - positive).clamp_min(0).mean())
        return torch.stack(terms).mean()
