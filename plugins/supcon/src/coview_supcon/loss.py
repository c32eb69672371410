"""The supervised contrastive loss: every image of the same class is a positive."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from coview.components import Guard
from coview.distributed import gather, rank
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.similarity import unit
from coview.plan import Plan
from coview.records import Batch, Encoded, Step, Targets
from coview.schedules import Schedule
from coview.settings import gt, setting


class SupCon(nn.Module):
    """Cross-entropy of all positives, outside the logarithm (Khosla et al. 2020, equation 2).

    For each view i of an image of the batch, A(i) are the views of all images, of all
    processes, but for i itself, and P(i) those of its class. The loss is the mean over i of
    -1 / |P(i)| times the sum over p in P(i) of log(exp(z_i z_p / t) / sum over A(i) of
    exp(z_i z_a / t)), where z are unit vectors. Released codes multiply it with the temperature
    (``weight`` does so). An image without a label (-1) is of a class of its own.
    """

    needs_fields = ("labels",)
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
        """Return the safeguard: the other classes."""
        return [Guard("the batch's other images as negatives", True)]

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets, batch: Batch, step: Step) -> Tensor:
        """Return the mean over views and rows; gradient reaches queries and all processes' keys."""
        labels = _labels(batch, encoded)
        slots = list(dict.fromkeys(key for _, key in encoded.pairs))
        candidates = torch.cat([gather(unit(targets.keys[slot])) for slot in slots])
        classes = gather(labels).repeat(len(slots))
        places = torch.arange(len(classes), device=labels.device)
        ours = rank() * len(labels) + places[: len(labels)]
        temperature = step.read(self.settings.temperature)
        losses = []
        for slot in dict.fromkeys(query for query, _ in encoded.pairs):
            logits = unit(encoded.queries[slot]) @ candidates.T / temperature
            first = slots.index(slot) * (len(classes) // len(slots)) if slot in slots else None
            itself = torch.zeros_like(logits, dtype=torch.bool)
            if first is not None:
                itself = places == (ours + first).unsqueeze(1)
            alike = (classes == labels.unsqueeze(1)) & ~itself
            losses.append(_cross_entropy(logits, alike, itself))
        return torch.stack(losses).mean()


def _labels(batch: Batch, encoded: Encoded) -> Tensor:
    """Return the labels (B,), those that are missing replaced by one of their own."""
    labels: Tensor = batch.fields["labels"]
    rows = {len(queries) for queries in encoded.queries.values()}
    if rows != {len(labels)}:
        raise RequestError(
            f"loss 'supcon' compares whole images, but the encoder gives {sorted(rows)} rows for "
            f"{len(labels)} images: use another encoder, or another loss."
        )
    return torch.where(labels < 0, -1 - batch.indices, labels)


def _cross_entropy(logits: Tensor, alike: Tensor, itself: Tensor) -> Tensor:
    """Return the mean over rows (N, M) of their positives' mean -log softmax, without itself."""
    total = logits.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    each = torch.where(alike, total - logits, 0.0).sum(dim=1)
    # A row without a positive (its only view, alone in its class) counts as 0.
    return (each / alike.sum(dim=1).clamp_min(1)).mean()
