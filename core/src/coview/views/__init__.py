"""What plugins build views with: batched operations on the run's device."""

from coview.views.augmentation import Augmentation
from coview.views.chain import Chain
from coview.views.crops import CropViews, TransformViews, positives, unit_interval

__all__ = [
    "Augmentation",
    "Chain",
    "CropViews",
    "TransformViews",
    "positives",
    "unit_interval",
]
