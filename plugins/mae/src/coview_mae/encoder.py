"""A transformer on visible patches, and a decoder that predicts the hidden ones."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.drop_path import deal
from coview.nn.encoder import ByView, Encoder, EncoderSettings
from coview.plan import Plan
from coview.records import Batch, Encoded, Step, Targets, Views
from coview.settings import gt, setting
from coview_mae.mask import MASKED, VISIBLE
from coview_mae.transformer import Decoder, visible_only


class MaskedAutoencoder(Encoder):
    """Predict the pixels of hidden patches from the visible ones (He et al. 2022, section 3).

    The trunk sees only visible patches; exported and evaluated, it sees all. Slot v holds the
    hidden patches of query view v: (B x m, patch x patch x C) in the order image, place. Their
    identities are index x patches + place, as each patch is a thing of its own. Which patches
    are hidden is decided by a wrapper of the views, such as ``random-mask``.
    """

    by_view = False
    example_backbone = "mae-vit-tiny"
    projector: Decoder

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's decoder."""

        width: int = setting(512, "width of the decoder", gt(0))
        blocks: int = setting(8, "transformer blocks of the decoder", gt(0))
        heads: int = setting(16, "attention heads of the decoder", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan, dim=0)
        layout, trunk = plan.layout, self.trunk
        assert layout is not None  # the base class demands it
        if not isinstance(trunk, VisionTransformer):
            raise RequestError(
                "encoder 'masked-autoencoder' leaves out patches, which only a vision transformer "
                f"allows, not {type(trunk).__name__}: use --backbone mae-vit-base."
            )
        sizes = {layout.sizes[view] for view in layout.queries}
        if len(sizes) > 1:
            raise RequestError(f"The decoder needs views of one size, not {sorted(sizes)}.")
        if settings.width % settings.heads or settings.width % 4:
            raise RequestError(
                f"encoder.width = {settings.width} must be a multiple of 4 and of encoder.heads = "
                f"{settings.heads}."
            )
        (height, width), patch = sizes.pop(), int(trunk.patch_embed.patch_size[0])
        grid = height // patch, width // patch
        self.dim, self.patches = patch * patch * layout.channels[0], grid[0] * grid[1]
        self.projector = Decoder(
            self.features, self.dim, grid, settings.width, settings.blocks, settings.heads
        )
        self.slots = dict.fromkeys(layout.queries, "patch")

    def project(self, views: Views, which: Sequence[int]) -> tuple[ByView, ByView]:
        """Return the trunk's features (B, D) of visible patches, and the hidden ones predicted."""
        if VISIBLE not in views.about:
            raise RequestError(
                "encoder 'masked-autoencoder' needs views with hidden patches: --use "
                "wrap=random-mask."
            )
        features, predicted = {}, {}
        for view in which:
            visible, masked = views.about[VISIBLE][view], views.about[MASKED][view]
            deal(self.drop_paths, 1, len(visible))
            tokens = visible_only(self.trunk, views.crops[view], visible)
            rows = self.projector(tokens, visible, masked)
            features[view], predicted[view] = self.trunk.forward_head(tokens), rows.flatten(0, 1)  # type: ignore[operator]
        return _full(features), _full(predicted)

    def encode_keys(self, views: Views, encoded: Encoded, batch: Batch, step: Step) -> Targets:
        """Return the predictions of the query views' hidden patches."""
        _, keys = self.project(views, views.queries)
        return Targets(keys, self._identities(views, batch))

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        """Predict the hidden patches of every query view; each is its own positive."""
        features, predicted = self.project(views, views.queries)
        pairs = tuple((view, view) for view in views.queries)
        return Encoded(predicted, predicted, self._identities(views, batch), pairs, features)

    def _identities(self, views: Views, batch: Batch) -> dict[int, Tensor]:
        first = batch.indices.unsqueeze(1) * self.patches
        return {view: (first + views.about[MASKED][view]).flatten() for view in views.queries}


def _full(by_view: ByView) -> ByView:
    half = (torch.bfloat16, torch.float16)
    return {view: x.float() if x.dtype in half else x for view, x in by_view.items()}
