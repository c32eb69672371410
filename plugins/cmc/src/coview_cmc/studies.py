"""CMC's claims as studies (Tian et al. 2020, arXiv:1906.05849)."""

from __future__ import annotations

from coview.studies import KNN, Above, Quantity, Study, Variant

__all__ = ["prediction", "views"]

TINY = Variant(method="cmc", preset="tiny", set={"views.flip_p": 0.0}, epochs=30)

HERE = (
    "Small ResNets and digits instead of AlexNet or U-Net and STL-10 or NYU-Depth; AdamW instead "
    "of SGD; no flips, which turn digits into other signs."
)

FIRST = Quantity("coview_cmc.one_view:first_view_knn", "kNN top-1 of the first view, %")
MEASURED = {"first": FIRST, "joined": KNN}

views = Study(
    claim="The more views a network's own view is contrasted with, the better it represents.",
    source="arXiv:1906.05849, section 4, on extending CMC to more views",
    common=Variant(data="colour-digits", set={"views.pairing": "core"}).over(TINY),
    variants={
        "L, a": Variant(set={"views.groups": [[0], [1]]}),
        "L, b": Variant(set={"views.groups": [[0], [2]]}),
        "L, a, b": Variant(set={"views.groups": [[0], [1], [2]]}),
        "L, a, b, full graph": Variant(
            set={"views.groups": [[0], [1], [2]], "views.pairing": "full"}
        ),
    },
    measure=MEASURED,
    expect=(Above("L, a, b", "L, a"), Above("L, a, b", "L, b")),
    notes=f"{HERE} The views are the three channels of Lab, where the paper adds depth, surface "
    "normals and segmentation to them; so there are two or three views instead of two to five. "
    "As in the paper L is the core view, and its own network is what is compared: the joined "
    "features of all networks are wider with more views. Digits are each of one random colour on "
    "another.",
)

SIDE = 16

prediction = Study(
    claim="Contrasting two views represents better than predicting one from the other.",
    source="arXiv:1906.05849, sections 3.1 and 4, on predictive and contrastive learning",
    common=Variant(data="moved-digits").over(TINY),
    variants={
        "contrast": Variant(),
        "prediction": Variant(
            use={"target": "pixels", "negatives": "none", "loss": "squared-error"},
            set={
                "target.side": SIDE,
                "encoder.dim": SIDE**2,
                "encoder.layers": 2,
                "encoder.hidden": 512,
            },
        ),
    },
    measure=MEASURED,
    expect=(Above("contrast", "prediction"),),
    notes=f"{HERE} The views are low and high spatial frequencies of grey digits, which tell much "
    "about each other, instead of luminance with depth, normals or segmentation. The decoder is a "
    f"head of two layers that predicts {SIDE} x {SIDE} pixels by squared error, instead of a "
    "convolutional one.",
)
