"""A patch encoder, a context network and one bilinear prediction head for each offset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.encoder import ByView, Encoder, EncoderSettings, norm_views
from coview.plan import Plan
from coview.records import Batch, Encoded, Views
from coview.settings import between, ge, gt, one_of, setting
from coview_cpc.context import CONTEXTS
from coview_cpc.norms import KINDS, normalized

EVERY_PATCH = 0
"""The slot that holds every patch once: keys and identities, but no queries."""


class AutoregressiveEncoder(Encoder):
    """Predict the pieces that follow (van den Oord et al. 2018, section 2.3).

    Every piece of the grid is encoded to z; a context network summarises the rows
    so far in c; for each offset k, a matrix W_k predicts the target z[r + k, col]
    from c[r, col]. A loss that compares by dot product thus scores with the paper's
    log-bilinear z' W_k c.

    Slot k holds offset k: its queries are the predictions, and its projections are
    their targets, in the order image, row, column. With several directions the grid
    is rotated by quarter turns, and slot d x last + k is offset k after d turns (0:
    downwards). Slot 0 has every target once and no queries. Identities are
    index x pieces + position, whatever the direction.

    The W_k start at zero, so that all candidates score alike and the first loss is
    the logarithm of their number. (The paper does not give its initialisation.)
    Every offset has the same weight in the loss, however many predictions it has.
    """

    by_view = False
    context: nn.ModuleList
    predictors: nn.ModuleList

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's values for images."""

        norm_views: str = norm_views("resolution")
        norm: str = setting(
            "none",
            "replacement of the trunk's batch norms (batch: keep them, although their statistics "
            "reveal patches of the same image)",
            one_of(*KINDS),
        )
        context: str = setting("masked-conv", "the autoregressive network", one_of(*CONTEXTS))
        context_hidden: int = setting(256, "width inside the autoregressive network", gt(0))
        context_layers: int = setting(
            5, "residual units or recurrent layers of the autoregressive network", gt(0)
        )
        context_of: str = setting(
            "own",
            "image whose context predicts: its own, or another one of the batch, a control from "
            "which nothing but the place can be predicted",
            one_of("own", "other"),
        )
        first: int = setting(1, "nearest row to predict, counted from the last one seen", ge(1))
        last: int = setting(5, "farthest row to predict, counted from the last one seen", ge(1))
        directions: int = setting(
            1, "directions (quarter turns) to predict in, a context network each", between(1, 4)
        )
        dim: int | None = setting(
            None, "width of targets, by a linear layer; none: the patch features themselves", gt(0)
        )
        scale: float = setting(1.0, "factor of the predictions", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        if plan.layout is None or plan.layout.grid is None:
            raise RequestError(
                "encoder 'autoregressive' predicts pieces of an image from other pieces, but these "
                "views are whole images: use views that make a grid, such as patch-grid."
            )
        super().__init__(settings, plan, dim=0)
        self.trunk = normalized(self.trunk, settings.norm)
        self.settings, self.grid = settings, plan.layout.grid
        _check_offsets(settings, self.grid)
        self.dim = settings.dim or self.features
        self.projector = nn.Identity()
        if settings.dim is not None:
            self.projector = nn.Linear(self.features, settings.dim)
        self._build_context()

    def _build_context(self) -> None:
        settings, offsets = self.settings, self.settings.last + 1 - self.settings.first
        make = CONTEXTS[settings.context]
        columns = [self.grid[1 - turns % 2] for turns in range(settings.directions)]
        networks = [
            make(self.features, settings.context_hidden, settings.context_layers, width)
            for width in columns
        ]
        heads = [nn.Linear(c.width, self.dim, bias=False) for c in networks for _ in range(offsets)]
        for head in heads:
            nn.init.zeros_(head.weight)
        self.context, self.predictors = nn.ModuleList(networks), nn.ModuleList(heads)

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        """Encode all pieces and predict; slots are offsets, see the class."""
        features, projections = self.project(views, views.queries)
        z, targets = self._on_grid(features), self._on_grid(projections)
        whose = self.identities(batch.indices)
        queries: dict[int, Tensor] = {}
        keys = {EVERY_PATCH: _rows(targets)}
        identities = {EVERY_PATCH: whose.flatten()}
        for turns, network in enumerate(self.context):
            context = network(_turned(z, turns))
            if self.settings.context_of == "other":
                context = context.roll(1, dims=0)
            ahead, theirs = _turned(targets, turns), _turned(whose, turns)
            for offset, slot, predictor in self._slots(turns):
                seen = context[:, :, :-offset]
                queries[slot] = predictor(_rows(seen)) * self.settings.scale
                keys[slot] = _rows(ahead[:, :, offset:])
                identities[slot] = theirs[:, offset:].flatten()
        queries = {slot: rows.to(keys[slot].dtype) for slot, rows in queries.items()}
        pairs = tuple((slot, slot) for slot in queries)
        return Encoded(queries, keys, identities, pairs, features)

    def identities(self, indices: Tensor) -> Tensor:
        """Return index x pieces + position: images (B,) -> (B, rows, columns) int64."""
        rows, columns = self.grid
        positions = torch.arange(rows * columns, device=indices.device).view(rows, columns)
        return indices.view(-1, 1, 1) * (rows * columns) + positions

    def backbone(self) -> nn.Module:
        """Return the patch encoder with a mean over patches: (B, C, p, p) each -> (B, D)."""
        return MeanOverPatches(self.trunk, self.features)

    def _slots(self, turns: int) -> Iterator[tuple[int, int, nn.Module]]:
        """Yield offset, slot and predictor of a direction."""
        first, last = self.settings.first, self.settings.last
        for place, offset in enumerate(range(first, last + 1)):
            predictor = self.predictors[turns * (last + 1 - first) + place]
            yield offset, turns * last + offset, predictor

    def _on_grid(self, by_view: ByView) -> Tensor:
        """Arrange the vectors of all pieces, (B, d) each, on the grid: (B, d, rows, columns)."""
        stacked = torch.stack([by_view[v] for v in sorted(by_view)], dim=2)
        return stacked.view(*stacked.shape[:2], *self.grid)


class MeanOverPatches(nn.Module):
    """An image's features: the mean of its patches' (van den Oord et al. 2018, section 3.3).

    Args:
        trunk: (N, C, p, p) -> (N, D).
        width: D.
    """

    def __init__(self, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.num_features = width

    def forward(self, *patches: Tensor) -> Tensor:
        """(B, C, p, p) each -> (B, D)."""
        features: Tensor = self.trunk(torch.cat(patches))
        return features.view(len(patches), -1, features.shape[1]).mean(dim=0)


def _turned(grid: Tensor, turns: int) -> Tensor:
    """Rotate the last two dimensions, rows and columns, by quarter turns."""
    return torch.rot90(grid, turns, dims=(-2, -1))


def _rows(grid: Tensor) -> Tensor:
    """(B, d, rows, columns) -> (B x rows x columns, d)."""
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


def _check_offsets(settings: AutoregressiveEncoder.Settings, grid: Sequence[int]) -> None:
    first, last = settings.first, settings.last
    if first > last:
        raise RequestError(f"encoder.first = {first} is beyond encoder.last = {last}.")
    # A quarter turn swaps rows and columns.
    rows = grid[0] if settings.directions == 1 else min(grid)
    if last >= rows:
        raise RequestError(
            f"encoder.last = {last} is outside the grid of {grid[0]} x {grid[1]} pieces: use "
            f"{rows - 1} or less, or smaller patches."
        )
