"""A claim about MoCo v3 as a study: `coview study run moco-v3/patch-projection`."""

import math
import statistics
from typing import Any

from coview.studies import KNN, UNTRAINED, Above, Quantity, Study, Variant

__all__ = ["patch_projection", "peak_gradient"]


def peak_gradient(run: Any) -> float:
    """Return the largest gradient norm that a run logged, as a multiple of the median."""
    norms = [row["grad_norm"] for row in run.metrics if "grad_norm" in row]
    finite = [norm for norm in norms if math.isfinite(norm)]
    return max(finite) / statistics.median(finite)


patch_projection = Study(
    claim=(
        "A random patch projection that is not trained steadies a vision transformer: gradients "
        "have lower peaks, and it is more accurate"
    ),
    source="arXiv:2104.02057, section 4.2, figures 4 and 5",
    common=Variant(
        method="moco-v3",
        preset="tiny",
        data="moved-digits",
        epochs=6,
        set={"views.flip_p": 0.0, "backbone.patch": 8, "optimizer.lr": 0.003},
    ),
    variants={
        "frozen": Variant(backbone="moco-v3-vit-tiny"),
        "trained": Variant(backbone="moco-v3-vit-tiny-learned"),
    },
    measure={
        "knn": KNN,
        "untrained": UNTRAINED,
        "peak": Quantity("coview_moco_v3.studies:peak_gradient", "peak gradient", percent=False),
    },
    expect=(Above("frozen", "trained"), Above("trained:peak", "frozen:peak")),
    notes=(
        "The paper trains a ViT-B/16 on ImageNet for 100 epochs with batches of 4096, where "
        "freezing gains 0.4 to 1.7 points, more at higher learning rates, and where the first "
        "layer's gradients peak before the others'. Here four blocks of width 192 cut 32 pixels "
        "into 16 patches and train for 200 steps, at a learning rate on the high side. Peaks are "
        "of the norm of all trained parameters' gradients, each an average of up to 33 steps, "
        "relative to the median."
    ),
    quick=Variant(epochs=1),
)
