"""Pixels as targets."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Targets, Views
from coview.settings import setting
from coview_mae.mask import MASKED
from coview_mae.transformer import taken


class Pixels(nn.Module):
    """Keys: the pixels of hidden patches, each patch standardised (He et al. 2022, section 3).

    There is no network, and no gradient. Patches are those that the views' mask hides.
    """

    needs = {"encoder": "it predicts these pixels"}

    @attrs.frozen
    class Settings:
        """The paper's best."""

        normalise: bool = setting(
            True, "subtract each patch's mean and divide by its standard deviation"
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        channels = plan.layout.channels[plan.layout.queries[0]] if plan.layout else plan.channels
        self._side = math.isqrt(plan.dim // channels)
        if set(plan.slots.values()) != {"patch"} or self._side**2 * channels != plan.dim:
            raise RequestError(
                "target 'patch-pixels' needs an encoder that predicts patches: --use "
                "encoder=masked-autoencoder."
            )
        self._normalise = settings.normalise

    @hookimpl
    @torch.no_grad()
    def encode_targets(self, views: Views, encoded: Encoded) -> Targets:
        """Return the pixels (B x m, patch x patch x C) of every query view's hidden patches."""
        keys = {}
        for view in encoded.queries:
            patches = taken(patchified(views.crops[view], self._side), views.about[MASKED][view])
            if self._normalise:
                variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
                patches = (patches - mean) / (variance + 1e-6).sqrt()
            keys[view] = patches.flatten(0, 1)
        return Targets(keys, encoded.identities)


def patchified(images: Tensor, side: int) -> Tensor:
    """Cut images into patches, (B, C, H, W) -> (B, patches, side x side x C), in reading order."""
    rows, columns = images.shape[2] // side, images.shape[3] // side
    cut = images.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
