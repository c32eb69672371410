"""SimCLR's claims as studies (Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

import math
from itertools import combinations

from coview.studies import KNN, Above, Quantity, Study, Variant
from coview_simclr import recipe

__all__ = ["augmentation_grid", "batch_and_epochs", "colour_shortcut", "head", "temperature"]

GREY_DIGITS = Variant(
    method="simclr", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0}, epochs=30
)
COLOURED_DIGITS = Variant(data="colour-digits").over(GREY_DIGITS)

HERE = (
    "A small ResNet and digits instead of ResNet-50 and ImageNet; AdamW instead of LARS; no "
    "flips, which turn digits into other signs; kNN accuracy instead of a linear classifier's."
)

PROJECTION = Quantity("coview.studies.measures:projection_knn", "kNN top-1 after the head, %")
COLOUR = Quantity("coview_simclr.colour:colour_left", "variance of the colours kept, %")

head = Study(
    claim="A non-linear projection head gives better representations than a linear one, and a "
    "linear one than none; and the layer before the head represents better than the one after it.",
    source="arXiv:2002.05709, section 4.2 and figure 8",
    common=GREY_DIGITS,
    variants={
        "no head": Variant(set={"encoder.layers": 0}),
        "linear": Variant(set={"encoder.layers": 1}),
        "non-linear": Variant(set={"encoder.layers": 2}),
    },
    measure={"knn": KNN, "projection": PROJECTION},
    expect=(
        Above("non-linear", "linear"),
        Above("linear", "no head"),
        Above("non-linear", "non-linear:projection"),
    ),
    notes=f"{HERE} Without a head both layers are the same. The linear head ends in the released "
    "code's batch normalisation.",
)

temperature = Study(
    claim="A fitted temperature represents better than a lower or a higher one.",
    source="arXiv:2002.05709, section 5.1 and table 5",
    common=GREY_DIGITS,
    variants={
        str(value): Variant(set={"loss.temperature": value}) for value in (0.02, 0.05, 0.1, 0.5, 1)
    },
    expect=(Above("0.1", "0.05"), Above("0.1", "1")),
    notes=f"{HERE} The table's four temperatures, and a lower one; the rule is about the one that "
    "is best there.",
)


def _rate(batch_size: int) -> float:
    """Return the preset's rate at this batch size, by the square root rule."""
    tiny = recipe.presets["tiny"]
    rate: float = tiny["optimizer"].settings["lr"]
    return rate * math.sqrt(batch_size / tiny["batch_size"])


BATCHES, EPOCHS = (32, 128, 512), (10, 20, 40)

batch_and_epochs = Study(
    claim="Larger batches help, most of all in short trainings; and longer trainings help.",
    source="arXiv:2002.05709, section 5.2, figure 9 and table B.1",
    common=GREY_DIGITS,
    variants={
        f"batch {batch} + {epochs} epochs": Variant(
            batch_size=batch, epochs=epochs, set={"optimizer.lr": _rate(batch)}
        )
        for batch in BATCHES
        for epochs in EPOCHS
    },
    expect=(
        Above("batch 128 + 10 epochs", "batch 32 + 10 epochs"),
        Above("batch 512 + 10 epochs", "batch 128 + 10 epochs"),
        *(
            Above(f"batch {batch} + {EPOCHS[-1]} epochs", f"batch {batch} + {EPOCHS[0]} epochs")
            for batch in BATCHES
        ),
    ),
    grid=(tuple(f"batch {n}" for n in BATCHES), tuple(f"{n} epochs" for n in EPOCHS)),
    notes=f"{HERE} Batches of 32 to 512 stand for 256 to 8192, and 10 to 40 epochs for 100 to 800. "
    "The rate grows with the square root of the batch, as in half of the paper's table. With "
    "--epochs, or in the quick form, all columns are the same.",
    quick=Variant(epochs=1),
)

OPERATIONS = {
    "crop": ("crop",),
    "colour": ("jitter", "grey"),
    "blur": ("blur",),
    "solarize": ("solarize",),
}
"""What each name stands for, in the order of the chain."""


def _only(*names: str) -> Variant:
    """Return a variant with these operations and no others."""
    kept = [part for name in OPERATIONS if name in names for part in OPERATIONS[name]]
    return Variant(set={"views.order": kept})


BEST = "crop + colour"

augmentation_grid = Study(
    claim="No single augmentation suffices: the best pair, cropping with colour distortion, "
    "represents better than any operation alone and than any other pair.",
    source="arXiv:2002.05709, section 3.1 and figure 5",
    common=Variant(epochs=20, set={"views.solarize_p": 0.5}).over(COLOURED_DIGITS),
    variants={
        f"{first} + {second}": _only(first, second) for first in OPERATIONS for second in OPERATIONS
    },
    expect=(
        *(Above(BEST, f"{name} + {name}") for name in OPERATIONS),
        *(
            Above(BEST, f"{first} + {second}")
            for first, second in combinations(OPERATIONS, 2)
            if f"{first} + {second}" != BEST
        ),
    ),
    grid=(tuple(OPERATIONS), tuple(OPERATIONS)),
    notes=f"{HERE} Four operations instead of seven: cutout, noise, Sobel and rotation are left "
    "out, and solarisation, which is not in the figure, is added (with probability 0.5). "
    "Both views are augmented, where the paper augments one and crops both; without a crop, "
    "views are of the whole image. On the diagonal is an operation alone. Digits are each of one "
    "random colour on another.",
)

NO_COLOUR = {"views.jitter_p": 0.0, "views.grey_p": 0.0}

colour_shortcut = Study(
    claim="Crops of one image share their colours, which suffice to match them: without colour "
    "distortion the network learns colours and not what is seen.",
    source="arXiv:2002.05709, sections 3.1 and 3.2, figure 6; arXiv:2011.02803 (feature "
    "suppression)",
    common=COLOURED_DIGITS,
    variants={
        "crop alone": Variant(set=NO_COLOUR),
        "jitter": Variant(set={"views.grey_p": 0.0}),
        "grey": Variant(set={"views.jitter_p": 0.0}),
        "always grey": Variant(set=NO_COLOUR | {"views.grey_p": 1.0}),
        "hue": Variant(set={"views.jitter": (0.0, 0.0, 0.0, 0.5), "views.grey_p": 0.0}),
        "jitter and grey": Variant(),
        "strong": Variant(set={"views.jitter": (0.8, 0.8, 0.8, 0.2)}),
    },
    measure={"knn": KNN, "colour": COLOUR},
    expect=(
        Above("jitter and grey", "crop alone"),
        Above("strong", "crop alone"),
        Above("crop alone:colour", "strong:colour"),
    ),
    notes=f"{HERE} Digits are each of one random colour on another, so the shortcut is stronger "
    "than in photographs. How much of a picture's colours is kept is the share of their variance "
    "that a linear map of the features explains on held-out digits. 'strong' is the paper's "
    "strength 1. The other variants have no rule: they show which operation does it.",
)
