"""Two strongly augmented crops."""

from __future__ import annotations

import attrs

from coview.plan import Plan
from coview.settings import ge, one_of, setting
from coview.views import Augmentation, CropViews


class SimCLRViews(CropViews):
    """SimCLR's augmentation (Chen et al. 2020, appendix A): crop, flip, jitter, grey, blur.

    Deviations from the released code: the blur's standard deviation is drawn for each
    image, not once per batch, and brightness multiplies (as in the later code), where
    the first code added. As in that code, images stay in [0, 1]
    (``normalize = false``).
    """

    @attrs.frozen
    class Settings(Augmentation):
        """The paper's values (colour strength 1); see :class:`coview.views.Augmentation`."""

        count: int = setting(2, "views per image", ge(1))
        symmetric: bool = setting(
            True, "use every view as query and key; else the first as query, the others as keys"
        )
        interpolation: str = setting(
            "bicubic", "resampling of a crop", one_of("bilinear", "bicubic")
        )
        normalize: bool = setting(
            False, "subtract the data set's mean and divide by its standard deviation"
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__([settings] * settings.count, plan, settings.symmetric)
