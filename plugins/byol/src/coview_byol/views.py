"""Two views, each with its own transform."""

from __future__ import annotations

import attrs

from coview.plan import Plan
from coview.settings import between, one_of, setting
from coview.views import Augmentation, CropViews


class TwoSidedViews(CropViews):
    """BYOL's two transforms (Grill et al. 2020, appendix B), which differ in blur and solarisation.

    The first view is blurred with probability ``blur_p`` and solarised with
    ``solarize_p``, the second with ``second_blur_p`` and ``second_solarize_p``; they
    share all else. Deviation from the released code: brightness multiplies, as in
    torchvision, where that code adds.
    """

    @attrs.frozen
    class Settings(Augmentation):
        """The paper's values; see :class:`coview.views.Augmentation`."""

        interpolation: str = setting(
            "bicubic", "resampling of a crop", one_of("bilinear", "bicubic")
        )
        jitter: tuple[float, float, float, float] = setting(
            (0.4, 0.4, 0.2, 0.1), "strength of brightness, contrast, saturation, hue"
        )
        blur_p: float = setting(1.0, "probability of blur, first view", between(0, 1))
        second_blur_p: float = setting(0.1, "probability of blur, second view", between(0, 1))
        solarize_p: float = setting(0.0, "probability of solarising, first view", between(0, 1))
        second_solarize_p: float = setting(
            0.2, "probability of solarising, second view", between(0, 1)
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        second = attrs.evolve(
            settings, blur_p=settings.second_blur_p, solarize_p=settings.second_solarize_p
        )
        super().__init__([settings, second], plan)
