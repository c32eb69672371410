"""Claims about BYOL as studies: `coview study run byol/ingredients`."""

from coview.studies import KNN, UNTRAINED, Above, Alike, Quantity, Study, Variant

__all__ = ["batch_statistics", "crops", "ingredients"]

MEASURES = {
    "knn": KNN,
    "untrained": UNTRAINED,
    "rank": Quantity("coview.studies.measures:rank", "rank", percent=False),
}
BASE = Variant(
    method="byol", preset="tiny", data="moved-digits", epochs=60, set={"views.flip_p": 0.0}
)
# A network that learns nothing keeps the accuracy of its random weights, more or less. Here that
# is far from chance, where the papers' linear classifiers end.
NOTHING = 0.05


def _learns(variant: str) -> Above:
    return Above(variant, f"{variant}:untrained", by=NOTHING)


def _learns_nothing(variant: str) -> Above:
    return Above(f"{variant}:untrained", variant, by=-NOTHING)


ingredients = Study(
    claim="Predictor and target network are both needed: without either, BYOL learns nothing",
    source="arXiv:2006.07733, section 5, tables 5a and 5b",
    common=BASE,
    variants={
        "BYOL": Variant(),
        "no predictor": Variant(set={"encoder.predictor": False}),
        # The average keeps nothing: each step's targets are the network's own, without gradient.
        "its own target": Variant(set={"target.decay": 0.0}),
        "no target": Variant(use={"target": "shared"}),
    },
    measure=MEASURES,
    expect=(
        _learns("BYOL"),
        _learns_nothing("no predictor"),
        _learns_nothing("its own target"),
        _learns_nothing("no target"),
    ),
    notes=(
        "The paper trains a ResNet-50 on ImageNet for 300 epochs with LARS and a batch of 4096, "
        "and reports a linear classifier: 72.5 % with both, 0.2 % without predictor, 0.3 % with "
        "the network as its own target (table 5a, decay 0) and 0.3 % with gradient through both. "
        "Here a ResNet-10 trains for 2,000 steps of SGD, and is judged by kNN. To learn nothing "
        "means to end at most 5 points above the untrained network. SimSiam (arXiv:2011.10566) "
        "later found that with a predictor the network can be its own target, at other learning "
        "rates; the paper's appendix has that too."
    ),
)

batch_statistics = Study(
    claim=(
        "Without batch norm naive BYOL learns nothing, but batch statistics are not what it "
        "needs: with group norm and weight standardisation it learns"
    ),
    source="arXiv:2010.10241, abstract and section 3",
    common=BASE,
    variants={
        "batch norm": Variant(),
        "no norm": Variant(backbone="resnet10-quarter-no-norm", set={"encoder.norm": "none"}),
        "group norm, standardised weights": Variant(
            backbone="resnet10-quarter-gn-ws",
            set={"encoder.norm": "group", "encoder.standardized": True},
        ),
    },
    measure=MEASURES,
    expect=(
        _learns("batch norm"),
        _learns_nothing("no norm"),
        _learns("group norm, standardised weights"),
    ),
    notes=(
        "The paper trains a ResNet-50 on ImageNet with LARS: 74.3 % with batch norm, 73.9 % with "
        "group norm and weight standardisation after 1,000 epochs, chance without any norm. Here "
        "a ResNet-10 of a quarter of the width, so 4 groups instead of 16, trains for 2,000 "
        "steps of SGD, and is judged by kNN. To learn nothing means: at most 5 points above the "
        "untrained network. That network differs between variants too."
    ),
)

SMALL, LARGE, SHORT, LONG = "crops from 0.3", "crops from 0.6", "20 epochs", "60 epochs"
TRAINED = {
    f"{crops} + {epochs}": Variant(
        epochs=int(epochs.split()[0]), set={"views.crop_scale": (float(crops.split()[-1]), 1.0)}
    )
    for crops in (SMALL, LARGE)
    for epochs in (SHORT, LONG)
}

crops = Study(
    claim=(
        "Where BYOL ends below its untrained network, its crops show too little of an image or it "
        "was trained too briefly; the implementation of its views is not the reason"
    ),
    source="coview's own question, asked when short runs on digits ended there",
    common=BASE,
    variants={
        **TRAINED,
        f"{SMALL} + {SHORT}, kornia's views": Variant(set={"views.backend": "kornia"}).over(
            TRAINED[f"{SMALL} + {SHORT}"]
        ),
    },
    measure=MEASURES,
    expect=(
        Above(f"{SMALL} + {SHORT}:untrained", f"{SMALL} + {SHORT}"),
        Above(f"{LARGE} + {SHORT}", f"{SMALL} + {SHORT}"),
        Above(f"{LARGE} + {LONG}", f"{LARGE} + {SHORT}"),
        Above(f"{LARGE} + {LONG}", f"{LARGE} + {LONG}:untrained", by=NOTHING),
        Alike(f"{SMALL} + {SHORT}, kornia's views", f"{SMALL} + {SHORT}", within=0.05),
    ),
    notes=(
        "Without negatives nothing asks that images differ, and a network of random weights tells "
        "digits apart to some degree. So accuracy falls in the first hundreds of steps, and rises "
        "later, if what both views show is enough to tell what the image is. Kornia's views are "
        "made operation by operation, the others all at once."
    ),
)
