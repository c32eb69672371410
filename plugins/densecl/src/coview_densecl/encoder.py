"""A backbone with two projection heads: one for images, one for the places of its map."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.similarity import unit
from coview.nn.encoder import ByView, Encoder, EncoderSettings
from coview.nn.heads import mlp
from coview.plan import Layout, Plan
from coview.records import Batch, Encoded, Step, Targets, Views
from coview.settings import gt, setting

IMAGE, PLACE = "image", "place"
"""What the rows of a key slot are."""


class DenseEncoder(Encoder):
    """Project images and the places of their feature maps (Wang et al. 2021, section 3.2).

    With V views, slots 0 to V - 1 hold images by view, (B, d), as in MoCo. The places of view
    v, (B x S x S, d) in the order image, row, column, are the queries of slot V + v. The keys
    of slot 2 V + i belong to positive pair i of views: each query place has the place of the
    other view with the most similar backbone features (section 3.3). Identities are those of
    the images. A queue keeps the mean of an image's places.

    Heads are as in the released code: linear, ReLU, linear for images, and the same with
    convolutions of one pixel for places.
    """

    by_view = False
    dense: nn.Module

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's values."""

        dim: int = setting(128, "width of both projections", gt(0))
        hidden: int = setting(2048, "width between the layers of both heads", gt(0))
        grid: int | None = setting(
            None,
            "places per side, to which the feature map is averaged; none: those of the map, "
            "7 for a ResNet and 224 pixels",
            gt(0),
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan, settings.dim)
        layout = plan.layout
        assert layout is not None  # the base class demands it
        _refuse_shared_keys(layout)
        self.grid, self.views = settings.grid, layout.count
        self.projector = mlp(
            self.features, settings.hidden, settings.dim, hidden_norm="none", output_norm="none"
        )
        for layer in self.projector.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.dense = nn.Sequential(
            nn.Conv2d(self.features, settings.hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(settings.hidden, settings.dim, 1),
        )
        places = {2 * self.views + number: PLACE for number in range(len(layout.pairs))}
        self.slots = {**dict.fromkeys(layout.keys, IMAGE), **places}

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        """Encode the query views, whole and by place."""
        maps = self.maps(views, views.queries)
        features, images = self.pooled(maps)
        maps = self._on_grid(maps)
        places = self._places(maps)
        rows = {self.views + view: place.flatten(0, 1) for view, place in places.items()}
        # Keys for targets that take the online network's own.
        own = self._matched(views, maps, maps, places)
        projections = {**images, **rows, **own}
        pairs = [(self.views + query, 2 * self.views + i) for i, (query, _) in _pairs(views)]
        return Encoded(
            queries={**images, **rows},
            projections=projections,
            identities=self._identities(projections, batch),
            pairs=(*views.pairs, *pairs),
            features=features,
            maps=maps,
        )

    def encode_keys(self, views: Views, encoded: Encoded, batch: Batch, step: Step) -> Targets:
        """Return keys of images and of places; the query places decide which places."""
        maps = self.maps(views, views.keys)
        _, images = self.pooled(maps)
        maps = self._on_grid(maps)
        places = self._places(maps)
        keys = {**images, **self._matched(views, encoded.maps, maps, places)}
        remembered = {2 * self.views + i: places[key].mean(dim=1) for i, (_, key) in _pairs(views)}
        return Targets(keys, self._identities(keys, batch), remembered)

    def _on_grid(self, maps: ByView) -> ByView:
        if self.grid is None:
            return maps
        return {v: adaptive_avg_pool2d(one, self.grid) for v, one in maps.items()}

    def _places(self, maps: ByView) -> ByView:
        """Return projected places (B, S x S, d), by view, in full precision."""
        return {view: _rows(self.dense(one)).to(one.dtype) for view, one in maps.items()}

    def _matched(
        self, views: Views, queries: ByView, keys: ByView, places: ByView
    ) -> dict[int, Tensor]:
        """Return the key places (B x S x S, d) of every pair whose key view is there."""
        return {
            2 * self.views + i: matched(queries[query], keys[key], places[key])
            for i, (query, key) in _pairs(views)
            if key in keys
        }

    def _identities(self, rows: Mapping[int, Tensor], batch: Batch) -> dict[int, Tensor]:
        whose = batch.indices
        return {s: whose.repeat_interleave(len(z) // len(whose)) for s, z in rows.items()}


@torch.no_grad()
def correspondence(queries: Tensor, keys: Tensor) -> Tensor:
    """Return for every query place the key place with the largest cosine (equation 5).

    Args:
        queries: (B, D, h, w) backbone features.
        keys: (B, D, h, w) features of the other views of the same images.

    Returns:
        (B, h x w) int64, places in the order row, column.
    """
    return (unit(_rows(queries)) @ unit(_rows(keys)).mT).argmax(dim=-1)


def matched(queries: Tensor, keys: Tensor, places: Tensor) -> Tensor:
    """Return the projection of the key place that each query place corresponds to.

    (B, D, h, w), (B, D, h, w) and (B, h x w, d) -> (B x h x w, d).
    """
    best = correspondence(queries, keys).unsqueeze(-1)
    return places.gather(1, best.expand(-1, -1, places.shape[-1])).flatten(0, 1)


def _rows(maps: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, h x w, D)."""
    return maps.flatten(2).transpose(1, 2)


def _pairs(views: Views) -> list[tuple[int, tuple[int, int]]]:
    return list(enumerate(views.pairs))


def _refuse_shared_keys(layout: Layout) -> None:
    keys = [key for _, key in layout.pairs]
    if len(set(keys)) < len(keys):
        raise RequestError(
            "encoder 'dense' compares the places of each key view with those of one query view, "
            f"but these {layout.count} views have {len(keys)} pairs for {len(set(keys))} keys: "
            "use two views (views.count = 2), or views.symmetric = false."
        )
