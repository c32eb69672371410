"""Cross-view prediction: the other view's pixels instead of its representation."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.similarity import reduced
from coview.plan import Plan
from coview.records import Batch, Encoded, Targets, Views
from coview.settings import gt, one_of, setting


class Pixels(nn.Module):
    """Targets that are the views themselves (Tian et al. 2020, section 3.1: what CMC improves on).

    A key is a view's pixels, averaged to ``side`` x ``side``. The encoder's head is
    then the decoder, and its width must be the number of these values.
    """

    by_view = True

    @attrs.frozen
    class Settings:
        """The resolution that is predicted."""

        side: int = setting(16, "pixels per side of the predicted view", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.side = settings.side
        if plan.layout is None:
            return
        widths = {plan.layout.channels[view] * self.side**2 for view in plan.layout.keys}
        if widths != {plan.dim} and plan.dim:
            raise RequestError(
                f"target 'pixels' has {' or '.join(map(str, sorted(widths)))} values a view, but "
                f"the encoder's width is {plan.dim}: set encoder.dim to the same number, or change "
                "target.side; all views must have as many channels."
            )

    @hookimpl
    @torch.no_grad()
    def encode_targets(self, views: Views, batch: Batch) -> Targets:
        """Return the pixels of the key views, (B, C x side x side), without gradient."""
        keys = {
            view: adaptive_avg_pool2d(views.crops[view], self.side).flatten(1)
            for view in views.keys
        }
        return Targets(keys, dict.fromkeys(views.keys, batch.indices))


class SquaredError(nn.Module):
    """The mean squared difference of a query from its key (Tian et al. 2020, section 3.1)."""

    same_space = True

    @attrs.frozen
    class Settings:
        """How pairs are put together."""

        reduction: str = setting("sum", "reduction over pairs of views", one_of("sum", "mean"))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Return the mean over queries and their values; gradient reaches queries and keys."""
        terms = [mse_loss(encoded.queries[q], targets.keys[k]) for q, k in encoded.pairs]
        return reduced(terms, self.settings.reduction)
