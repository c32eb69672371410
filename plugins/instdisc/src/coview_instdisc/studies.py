"""InstDisc's claims as studies (Wu et al. 2018, arXiv:1805.01978)."""

from __future__ import annotations

from coview.studies import KNN, Above, Alike, Quantity, Study, Variant

__all__ = ["momentum", "negatives"]

DIGITS = Variant(
    method="instdisc", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0}, epochs=30
)

HERE = (
    "A small ResNet and digits instead of ResNet-18 and CIFAR-10; AdamW instead of SGD; no flips, "
    "which turn digits into other signs."
)

ROUGHNESS = Quantity("coview_instdisc.steadiness:loss_roughness", "roughness of the loss, %")

SOFTMAX = "non-parametric-softmax"


def _against(draws: int, loss: str) -> Variant:
    """Return a variant with so many draws for each query; 0: every other row of the bank."""
    return Variant(use={"loss": loss}, set={"target.draws": draws})


negatives = Study(
    claim="Noise-contrastive estimation is better the more noise samples it draws, and with many "
    "of them as good as the softmax over all images.",
    source="arXiv:1805.01978, section 4.1 and table 1",
    # The paper's temperature on small images, for both losses.
    common=Variant(set={"loss.temperature": 0.1}).over(DIGITS),
    variants={
        "NCE, m = 1": _against(1, "nce"),
        "NCE, m = 8": _against(8, "nce"),
        "NCE, m = 64": _against(64, "nce"),
        "NCE, m = 512": _against(512, "nce"),
        "softmax, m = 8": _against(8, SOFTMAX),
        "softmax, m = 512": _against(512, SOFTMAX),
        "softmax, all": _against(0, SOFTMAX),
    },
    expect=(
        Above("NCE, m = 8", "NCE, m = 1"),
        Above("NCE, m = 512", "NCE, m = 8"),
        Alike("NCE, m = 512", "softmax, all", within=0.02),
    ),
    notes=f"{HERE} With 4,314 images, 1 to 512 draws stand for the paper's 1 to 4096 of 50,000. "
    "The softmax over draws is not in the table; it has no rule, and shows what is owed to the "
    "number of negatives and what to NCE's constant Z.",
)

momentum = Study(
    claim="Keeping part of an image's old row when it is visited again makes the loss fall more "
    "steadily, and the representation better.",
    source="arXiv:1805.01978, section 3.3 and figure 3; the released code",
    common=DIGITS,
    variants={
        f"momentum {value}": Variant(set={"target.momentum": value}) for value in (0.0, 0.5, 0.9)
    },
    measure={"knn": KNN, "roughness": ROUGHNESS},
    expect=(
        Above("momentum 0.5", "momentum 0.0"),
        Above("momentum 0.0:roughness", "momentum 0.5:roughness"),
    ),
    notes=f"{HERE} The paper makes training steady by a proximal term in the loss; its released "
    "code has none, and keeps half of each old row instead, which is what is tested. Roughness "
    "is the logged loss's deviation from a straight line in the second half of training, as a "
    "share of its mean. The loss is the softmax over all images.",
)
