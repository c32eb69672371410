"""What plugins build views with: batched operations on the run's device."""

from coview.views.augmentation import Augmentation, Normalize
from coview.views.chain import Chain, unit_interval
from coview.views.crops import CropViews, Rendering, TransformViews, positives
from coview.views.fusing import fuse

__all__ = [
    "Augmentation",
    "Chain",
    "CropViews",
    "Normalize",
    "Rendering",
    "TransformViews",
    "fuse",
    "positives",
    "unit_interval",
]
