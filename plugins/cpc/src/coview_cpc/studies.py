"""CPC's claims as studies (van den Oord et al. 2018, arXiv:1807.03748)."""

from __future__ import annotations

from coview.studies import KNN, UNTRAINED, Above, Study, Variant

__all__ = ["context", "offsets"]

DIGITS = Variant(
    method="cpc", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0}, epochs=8
)

HERE = (
    "A small ResNet on 5 x 5 patches of digits, with a GRU down the columns and layer norm, "
    "instead of ResNet-101 on 7 x 7 patches of ImageNet; no flips, which turn digits into other "
    "signs; kNN accuracy instead of a linear classifier's."
)

MEASURED = {"knn": KNN, "untrained": UNTRAINED}
ALL = "rows 1 to 4"

offsets = Study(
    claim="Predicting several steps ahead represents better than predicting the next one alone.",
    source="arXiv:1807.03748, section 3.1 and table 2",
    common=DIGITS,
    variants={
        "row 1": Variant(set={"encoder.last": 1}),
        "rows 1 and 2": Variant(set={"encoder.last": 2}),
        "rows 1 to 3": Variant(set={"encoder.last": 3}),
        ALL: Variant(),
    },
    measure=MEASURED,
    expect=(Above(ALL, "row 1"), Above(ALL, "rows 1 and 2")),
    notes=f"{HERE} The paper's table is of speech, 2 to 16 steps of 10 ms, and phones; for images "
    "it predicts up to five rows and compares nothing. A step is a row of patches here.",
)

context = Study(
    claim="What is learned comes from predicting an image by its own context: with the context "
    "of another image nothing can be predicted, and the representation is worse.",
    source="arXiv:1807.03748, sections 2.1 and 2.3",
    common=DIGITS,
    variants={
        "own context": Variant(),
        "another image's context": Variant(set={"encoder.context_of": "other"}),
    },
    measure=MEASURED,
    expect=(Above("own context", "another image's context"),),
    notes=f"{HERE} The paper has no such experiment: this is a control of what it argues, that "
    "the loss bounds the information which context and target share, of which there is none here "
    "but the place in the image.",
)
