"""Two strongly augmented crops."""

from __future__ import annotations

import attrs

from coview.plan import Plan
from coview.settings import ge, one_of, setting
from coview.views import Augmentation, CropViews


class SimCLRViews(CropViews):
    """SimCLR's augmentation (Chen et al. 2020, appendix A): crop, flip, jitter, grey, blur.

    Deviations from the released code: a standard deviation of the blur is
    drawn for each image, not one a batch, and brightness multiplies (as the
    later code does) where the first code added. Images stay in [0, 1]
    (``normalize = false``), as there.
    """

    @attrs.frozen
    class Settings(Augmentation):
        """The paper's values (colour strength 1); see :class:`coview.views.Augmentation`."""

        count: int = setting(2, "views an image", ge(1))
        symmetric: bool = setting(
            True, "every view is query and key; else the first is the query, the others keys"
        )
        interpolation: str = setting(
            "bicubic", "how a crop is resampled", one_of("bilinear", "bicubic")
        )
        normalize: bool = setting(False, "subtract the data set's mean and divide by its deviation")

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__([settings] * settings.count, plan, settings.symmetric)
