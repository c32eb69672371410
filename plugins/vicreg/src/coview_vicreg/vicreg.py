"""VICReg's loss: invariance, variance and covariance."""

from __future__ import annotations

from typing import NamedTuple

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from coview.components import Guard
from coview.distributed import gather
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Step, Targets
from coview.settings import ge, gt, setting
from coview_vicreg.statistics import mean_over_pairs, sum_of_squares


class _Embedding(NamedTuple):
    rows: Tensor
    variance: Tensor
    covariance: Tensor


class VICReg(nn.Module):
    """Views agree, columns vary, and no two columns do so together (Bardes et al. 2022).

    With embeddings Z and Z' of two views (equations 1 to 6 as the released code scales them):
    ``invariance`` times their mean squared difference over rows and columns, ``variance``
    times the mean over both of v, and ``covariance`` times the sum over both of c, where v is
    the mean over columns of max(0, ``margin`` - sqrt(Var + ``epsilon``)), and c the sum of
    squared covariances of different columns, divided by their number. Variances and
    covariances are those of the rows of all processes. The three terms are logged
    without their factors.
    """

    ignores = ("negatives",)
    same_space = True

    @attrs.frozen
    class Settings:
        """The paper's values."""

        invariance: float = setting(25.0, "factor of the distance between views", ge(0))
        variance: float = setting(25.0, "factor of the variance that is missing", ge(0))
        covariance: float = setting(1.0, "factor of the squared covariances", ge(0))
        margin: float = setting(1.0, "standard deviation that each column should have", gt(0))
        epsilon: float = setting(1e-4, "added to variances before the root", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    def guards(self) -> list[Guard]:
        """Return the safeguard: the variance term."""
        on = self.settings.variance > 0
        return [Guard("a variance term", on, "--set loss.variance=25")]

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets, step: Step) -> Tensor:
        """Return the loss; gradient reaches both views, if the target allows it."""
        terms = mean_over_pairs(encoded, targets, self._embedding, _compared)
        factors = {name: getattr(self.settings, name) for name in NAMES}
        for name, term in zip(NAMES, terms, strict=True):
            step.log(name, term)
        parts = zip(factors.values(), terms, strict=True)
        return torch.stack([factor * term for factor, term in parts]).sum()

    def _embedding(self, rows: Tensor) -> _Embedding:
        """Return rows (N, d) with their variance term and covariance term over all processes."""
        every = gather(rows)
        count, columns = every.shape
        centred = every - every.mean(dim=0)
        variances = centred.square().sum(dim=0) / (count - 1)
        missing = relu(self.settings.margin - (variances + self.settings.epsilon).sqrt())
        squares = sum_of_squares(centred, centred) / (count - 1) ** 2
        # The variances are the diagonal of the matrix of covariances.
        return _Embedding(rows, missing.mean(), (squares - variances.square().sum()) / columns)


NAMES = ("invariance", "variance", "covariance")


def _compared(first: _Embedding, second: _Embedding) -> Tensor:
    return torch.stack(
        [
            mse_loss(first.rows, second.rows),
            (first.variance + second.variance) / 2,
            first.covariance + second.covariance,
        ]
    )
