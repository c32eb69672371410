"""A vision transformer with hidden patches, and one head for class token and patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.drop_path import deal
from coview.nn.encoder import ByView, EncoderSettings, norm_views
from coview.nn.prototype_encoder import PrototypeEncoder
from coview.plan import Plan
from coview.records import Batch, Encoded, Step, Targets, Views
from coview.settings import ge, gt, one_of, setting
from coview_ibot.mask import MASK


class MaskedTokens(PrototypeEncoder):
    """Project the class token and every patch token by one head (Zhou et al. 2022, section 3.2).

    With V views, slots 0 to V - 1 hold images by view, (B, K), as in DINO. The patches of view
    v, (B x L, K) in the order image, place, are slot V + v, for views that are query and key;
    each patch is compared with itself. In queries the masked patches (``block-mask``) are
    replaced by a learnt token before positions are added; a target's copy sees all patches.
    Identities of patches are index x L + place.

    As in DINO, each gradient tensor is clipped by its own norm, and the head's last layer is not
    trained in the first epoch.
    """

    by_view = False
    example_backbone = "test_vit"

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's values."""

        dim: int = setting(8192, "number of outputs K, of images and of patches", gt(1))
        hidden: int = setting(2048, "width between layers", gt(0))
        bottleneck: int = setting(256, "width before the last layer", gt(0))
        layers: int = setting(3, "linear layers before the last one", ge(1))
        norm: str = setting("none", "normalisation between layers", one_of("none", "batch"))
        norm_last_layer: bool = setting(
            True, "keep the last layer's rows at length 1 instead of learning it (not for ViT-S)"
        )
        freeze_last_epochs: float = setting(
            1.0, "number of first epochs in which the last layer is not trained", ge(0)
        )
        clip: float = setting(3.0, "largest gradient norm of one tensor; 0: no clipping", ge(0))
        norm_views: str = norm_views("joint")

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan)
        layout = plan.layout
        assert layout is not None  # the base class demands it
        if not isinstance(self.trunk, VisionTransformer) or not self.trunk.num_prefix_tokens:
            raise RequestError(
                "encoder 'masked-tokens' needs a vision transformer with a class token, not "
                f"{type(self.trunk).__name__}: use --backbone vit_small_patch16_224."
            )
        self.count = layout.count
        self.mask_token = nn.Parameter(torch.zeros(self.features))
        self.whole = [view for view in layout.keys if view in layout.queries]
        images = dict.fromkeys(layout.keys, "image")
        self.slots = {**images, **{self.count + view: "token" for view in self.whole}}

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        """Encode the query views, the patches of key views with some of them hidden."""
        if MASK not in views.about:
            raise RequestError(
                "encoder 'masked-tokens' needs views with hidden patches: --use wrap=block-mask."
            )
        features, rows = self._rows(views, views.queries, views.about[MASK])
        pairs = [(self.count + view, self.count + view) for view in self.whole]
        return Encoded(
            queries=rows,
            projections=rows,
            identities=self._identities(rows, batch),
            pairs=(*views.pairs, *pairs),
            features=features,
        )

    def encode_keys(self, views: Views, encoded: Encoded, batch: Batch, step: Step) -> Targets:
        """Return keys of images and of all patches, with nothing hidden."""
        _, keys = self._rows(views, views.keys, {})
        return Targets(keys, self._identities(keys, batch))

    def project(self, views: Views, which: Sequence[int]) -> tuple[ByView, ByView]:
        """Return features (B, D) and projections (B, K) of whole images with nothing hidden."""
        features, rows = self._rows(views, which, {})
        return features, {view: rows[view] for view in which}

    def _rows(
        self, views: Views, which: Sequence[int], masks: Mapping[int, Tensor]
    ) -> tuple[ByView, ByView]:
        """Return features by view, and what the head makes of images and patches, by slot."""
        crops = {view: views.crops[view] for view in which}
        tokens: dict[int, Tensor] = {}
        for group in self._trunk_groups(crops):
            tokens |= self._tokens({view: crops[view] for view in group}, masks)
        features = {view: self.trunk.forward_head(made) for view, made in tokens.items()}  # type: ignore[operator]
        prefix: int = self.trunk.num_prefix_tokens  # type: ignore[assignment]
        rows = dict(features)
        for view in self.whole:
            if view in tokens:
                rows[self.count + view] = tokens[view][:, prefix:].flatten(0, 1)
        # Rows of images and of patches pass through the head together.
        sizes = [len(one) for one in rows.values()]
        made = self.projector(torch.cat(list(rows.values()))).split(sizes)
        return _full(features), _full(dict(zip(rows, made, strict=True)))

    def _tokens(self, crops: ByView, masks: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Run the trunk on views of one size; return their normalised tokens."""
        trunk, rows = self.trunk, [len(crop) for crop in crops.values()]
        patches = trunk.patch_embed(torch.cat(list(crops.values())))  # type: ignore[operator]
        if masks:
            shape = patches.shape[:-1]
            one = next(iter(masks.values()))
            hidden = torch.cat(
                [
                    masks[v].flatten(1) if v in masks else one.new_zeros(n, shape[1:].numel())
                    for v, n in zip(crops, rows, strict=True)
                ]
            )
            token = self.mask_token.to(patches.dtype)
            patches = torch.where(hidden.view(*shape, 1), token, patches)
        deal(self.drop_paths, len(rows), rows[0])
        tokens = trunk.norm(trunk.blocks(trunk.norm_pre(trunk._pos_embed(patches))))  # type: ignore[operator]
        return dict(zip(crops, tokens.split(rows), strict=True))

    def _identities(self, rows: Mapping[int, Tensor], batch: Batch) -> dict[int, Tensor]:
        whose = {}
        for slot, made in rows.items():
            count = len(made) // len(batch.indices)
            places = torch.arange(count, device=batch.indices.device)
            whose[slot] = (batch.indices.unsqueeze(1) * count + places).flatten()
        return whose


def _full(by_slot: ByView) -> dict[int, Tensor]:
    half = (torch.bfloat16, torch.float16)
    return {slot: x.float() if x.dtype in half else x for slot, x in by_slot.items()}
