"""Claims about SwAV as studies: `coview study run swav/multi-crop`."""

from coview.studies import KNN, UNTRAINED, Above, Alike, Study, Variant

__all__ = ["multi_crop", "prototypes"]

BASE = Variant(method="swav", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0})
MEASURES = {"knn": KNN, "untrained": UNTRAINED}

multi_crop = Study(
    claim="At equal compute, a few small crops more are better than longer training with two large",
    source="arXiv:2006.09882, section 3.2 and figure 3 (left)",
    common=BASE,
    variants={
        "2 crops": Variant(epochs=45, set={"views.crop_scale": (0.3, 1.0)}),
        "2 crops + 4 small": Variant(
            epochs=30,
            set={
                "views.size": ("none", 16),
                "views.count": (2, 4),
                "views.crop_scale": ((0.3, 1.0), (0.1, 0.3)),
            },
        ),
    },
    measure=MEASURES,
    expect=(Above("2 crops + 4 small", "2 crops"),),
    notes=(
        "The paper compares 2 crops of 224 pixels with 2 of 160 and 4 of 96, which are fewer "
        "pixels, at equal epochs: 2 to 4 points for four methods. Here the large crops keep "
        "their 32 pixels, since smaller ones blur a digit; four small ones of 16 have half as "
        "many pixels as the two large together, and the run without them gets half as many "
        "epochs more. A small crop shows 0.1 to 0.3 of an image instead of 0.05 to 0.14: these "
        "images have a digit of 14 to 26 pixels on an empty ground, and less of them often shows "
        "nothing at all."
    ),
)

prototypes = Study(
    claim="The number of prototypes matters little, once there are several for each class",
    source="arXiv:2006.09882, appendix, table 'Impact of number of prototypes'",
    common=Variant(epochs=60).over(BASE),
    variants={
        "30": Variant(set={"encoder.prototypes": 30}),
        "128": Variant(set={"encoder.prototypes": 128}),
        "1000": Variant(set={"encoder.prototypes": 1000}),
    },
    measure=MEASURES,
    expect=(Alike("30", "128", within=0.02), Alike("1000", "128", within=0.02)),
    notes=(
        "In the paper, 3,000 to 100,000 prototypes for ImageNet's 1,000 classes differ by 0.3 "
        "points at most, with batches of 4096. Here 30 to 1,000 for 10 classes are the same "
        "multiples of the number of classes; with batches of 128, most of 1,000 prototypes are "
        "nobody's in a step."
    ),
)
