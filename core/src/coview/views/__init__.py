"""Building blocks for views: batched operations on the run's device."""

from coview.views.augmentation import Augmentation, Normalize
from coview.views.backends.fused.fusing import fuse
from coview.views.chain import Chain, unit_interval
from coview.views.crops import CropViews, Rendering, least_side, positives
from coview.views.own import TransformViews

__all__ = [
    "Augmentation",
    "Chain",
    "CropViews",
    "Normalize",
    "Rendering",
    "TransformViews",
    "fuse",
    "least_side",
    "positives",
    "unit_interval",
]
