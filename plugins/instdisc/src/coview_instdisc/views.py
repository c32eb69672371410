"""Weakly augmented random crops: one per image for InstDisc, two for MoCo."""

from __future__ import annotations

import attrs

from coview.plan import Plan
from coview.settings import between, ge, setting
from coview.views import Augmentation, CropViews


class InstanceViews(CropViews):
    """InstDisc's augmentation (released code of Wu et al. 2018; also MoCo v1's).

    A crop of 20 to 100 % of the area, grey-scale with probability 0.2, colour
    jitter on every image, and a horizontal flip.
    """

    @attrs.frozen
    class Settings(Augmentation):
        """InstDisc's values; see :class:`coview.views.Augmentation`."""

        count: int = setting(1, "views per image", ge(1))
        symmetric: bool = setting(
            False, "use every view as query and key; else the first as query, the others as keys"
        )
        crop_scale: tuple[float, float] = setting(
            (0.2, 1.0), "least and greatest share of the image's area in a crop"
        )
        jitter: tuple[float, float, float, float] = setting(
            (0.4, 0.4, 0.4, 0.4), "strength of brightness, contrast, saturation, hue"
        )
        jitter_p: float = setting(1.0, "probability of colour jitter", between(0, 1))
        blur_p: float = setting(0.0, "probability of Gaussian blur", between(0, 1))
        order: tuple[str, ...] = setting(
            ("crop", "grey", "jitter", "flip"), "order of the operations"
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__([settings] * settings.count, plan, settings.symmetric)
