"""Barlow Twins' loss: a correlation matrix that should be the identity."""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from coview.components import Guard
from coview.distributed import gather
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Targets
from coview.settings import ge, gt, setting
from coview_vicreg.statistics import mean_over_pairs, sum_of_squares


class BarlowTwins(nn.Module):
    """Columns of two views correlate with themselves only (Zbontar et al. 2021, equation 1).

    C is the (d, d) matrix of correlations, over the batch of all processes, of the columns
    of one view with those of the other. The loss is the sum of (1 - C_ii)^2 and
    ``redundancy`` times the sum of the other entries' squares.
    """

    ignores = ("negatives",)
    same_space = True

    @attrs.frozen
    class Settings:
        """The released code's values."""

        redundancy: float = setting(
            0.0051, "factor of the correlations of different columns (lambda)", ge(0)
        )
        epsilon: float = setting(1e-5, "added to variances before the root", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    def guards(self) -> list[Guard]:
        """Return the safeguard: standardised columns, whose correlation a constant lacks."""
        on = self.settings.redundancy > 0
        return [Guard("a redundancy term", on, "--set loss.redundancy=0.0051")]

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Return the loss; gradient reaches both views, if the target allows it."""
        return mean_over_pairs(encoded, targets, self._standardised, self._compared)

    def _standardised(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, (N, d), with mean 0 and variance 1 in each column."""
        every = gather(rows)
        centred = every - every.mean(dim=0)
        return centred / (centred.square().mean(dim=0) + self.settings.epsilon).sqrt()

    def _compared(self, first: Tensor, second: Tensor) -> Tensor:
        own = (first * second).mean(dim=0)
        others = sum_of_squares(first, second) / len(first) ** 2 - own.square().sum()
        return (1 - own).square().sum() + self.settings.redundancy * others
