"""MoCo v2's claims as studies (Chen et al. 2020, arXiv:2003.04297)."""

from __future__ import annotations

from typing import Any

from coview.studies import Above, Study, Variant

__all__ = ["ingredients", "small_batch"]

DIGITS = Variant(
    method="moco-v2", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0}, epochs=30
)

HERE = (
    "A small ResNet and digits instead of ResNet-50 and ImageNet; AdamW instead of SGD; no flips, "
    "which turn digits into other signs; kNN accuracy instead of a linear classifier's."
)

EPOCHS = 20

WITHOUT: dict[str, Any] = {
    "head": {"encoder.layers": 1},
    "blur": {"views.blur_p": 0.0},
    # The rate drops at 60 % and 80 % of the training, as in MoCo v1.
    "cosine": {"schedule.milestones": (EPOCHS * 3 // 5, EPOCHS * 4 // 5)},
}
"""The settings that take each ingredient away."""


def _with(*names: str, epochs: int = EPOCHS) -> Variant:
    """Return MoCo v1 with these ingredients of v2."""
    missing = [name for name in WITHOUT if name not in names]
    taken = {key: value for name in missing for key, value in WITHOUT[name].items()}
    steps = {"schedule": "steps"} if "cosine" in missing else {}
    return Variant(epochs=epochs, use=steps, set=taken)


ingredients = Study(
    claim="A two-layer head, stronger augmentation (blur), a cosine schedule and longer training "
    "each improve MoCo v1, and together most of all.",
    source="arXiv:2003.04297, section 3 and table 1",
    common=DIGITS,
    variants={
        "v1": _with(),
        "head": _with("head"),
        "blur": _with("blur"),
        "cosine": _with("cosine"),
        "head, blur": _with("head", "blur"),
        "head, blur, cosine": _with("head", "blur", "cosine"),
        "all, 4 times as long": _with("head", "blur", "cosine", epochs=4 * EPOCHS),
    },
    expect=(
        Above("head", "v1"),
        Above("blur", "v1"),
        Above("head, blur", "head"),
        Above("head, blur", "blur"),
        Above("head, blur, cosine", "v1"),
        Above("all, 4 times as long", "head, blur, cosine"),
    ),
    notes=f"{HERE} v1 is v2 without its ingredients, with v2's temperature and batch norm; the "
    "warm-up of an epoch comes with the cosine schedule. On grey digits blur is all that the "
    "stronger augmentation adds. The table does not have the cosine schedule alone, and it adds "
    "0.2 points to the other two there: too little for a rule.",
)

small_batch = Study(
    claim="With a queue a small batch suffices: MoCo v2 is better than SimCLR with the same small "
    "batch, and than SimCLR with a larger one.",
    source="arXiv:2003.04297, section 3 and table 2",
    common=DIGITS,
    variants={
        f"{name}, batch {size}": Variant(method=name, batch_size=size)
        for name in ("moco-v2", "simclr")
        for size in (32, 128)
    },
    expect=(
        Above("moco-v2, batch 32", "simclr, batch 32"),
        Above("moco-v2, batch 32", "simclr, batch 128"),
    ),
    notes=f"{HERE} Batches of 32 and 128 stand for the paper's 256 and 8192. Each method keeps "
    "its own preset, the rate too, whatever the batch.",
    quick=Variant(epochs=1),
)
