"""Claims about SimSiam as studies: `coview study run simsiam/stop-gradient`."""

from coview.studies import KNN, UNTRAINED, Above, Alike, Quantity, Study, Variant

__all__ = ["batch_size", "predictor", "stop_gradient"]

RANK = Quantity("coview.studies.measures:rank", "rank", percent=False)
SPREAD = Quantity("coview.studies.measures:spread", "spread", percent=False)
BASE = Variant(
    method="simsiam", preset="tiny", data="moved-digits", epochs=60, set={"views.flip_p": 0.0}
)
MEASURES = {"knn": KNN, "untrained": UNTRAINED, "rank": RANK, "spread": SPREAD}
SCALE = (
    "The paper trains a ResNet-50 on ImageNet for 100 epochs with SGD and reports a linear "
    "classifier. Here a ResNet-10 with a head of two layers trains for 60 epochs with SGD, and "
    "is judged by kNN."
)
# The preset's, for 128 images.
RATE = 0.5
# As in coview-byol's studies.
NOTHING = 0.05
# Below this effective rank of the projections, coview warns of a collapse (docs/collapse.md).
COLLAPSED = 2.0

stop_gradient = Study(
    claim="Without stop-gradient, SimSiam collapses to one output and learns nothing",
    source="arXiv:2011.10566, section 4.1, figure 2",
    common=BASE,
    variants={
        "with stop-gradient": Variant(),
        "without": Variant(use={"target": "shared"}),
    },
    measure=MEASURES,
    expect=(
        Above("with stop-gradient", "with stop-gradient:untrained", by=NOTHING),
        Above("without:untrained", "without", by=-NOTHING),
        Above("with stop-gradient:rank", COLLAPSED),
        Above(COLLAPSED, "without:rank"),
    ),
    notes=(
        f"{SCALE} The paper shows collapse by the deviation of normalised outputs, which goes to "
        "0; that is the column spread (1 where it is the paper's 1/sqrt(d)). The last batch norm "
        "can keep two opposite outputs apart, whose spread is not 0, so the rule is about the "
        "effective "
        "rank of the projections: below 2 there is one direction at most. To learn nothing means: "
        "at most 5 points above the untrained network (in the paper, 0.1 % against 67.7 %)."
    ),
)

predictor = Study(
    claim="SimSiam needs its predictor, and needs it trained; its learning rate need not fall",
    source="arXiv:2011.10566, section 4.2, table 1",
    common=BASE,
    variants={
        "constant rate": Variant(set={"encoder.predictor_fixed_rate": True}),
        "falling rate": Variant(set={"encoder.predictor_fixed_rate": False}),
        "not trained": Variant(set={"encoder.predictor_trained": False}),
        "no predictor": Variant(set={"encoder.predictor": False}),
    },
    measure=MEASURES,
    expect=(
        Above("constant rate", "constant rate:untrained", by=NOTHING),
        Above("constant rate", "falling rate", by=-0.02),
        Above("not trained:untrained", "not trained", by=-NOTHING),
        Above("no predictor:untrained", "no predictor", by=-NOTHING),
    ),
    notes=(
        f"{SCALE} In the paper: no predictor 0.1 %, a random one that is not trained 1.5 %, one "
        "whose rate falls with the others' 67.7 %, one with a constant rate 68.1 %. To learn "
        "nothing means: at most 5 points above the untrained network; a constant rate counts as "
        "no worse if it is at most 2 points below."
    ),
)

batch_size = Study(
    claim="SimSiam works about as well with small batches as with large ones",
    source="arXiv:2011.10566, section 4.3, table 2",
    common=BASE,
    variants={
        "64": Variant(batch_size=64, set={"optimizer.lr": RATE / 2}),
        "128": Variant(batch_size=128),
        "256": Variant(batch_size=256, set={"optimizer.lr": RATE * 2}),
    },
    expect=(Alike("64", "128", within=0.02), Alike("256", "128", within=0.02)),
    measure={"knn": KNN, "untrained": UNTRAINED},
    notes=(
        f"{SCALE} The paper compares 64 to 4096 images at equal epochs: 66.1, 67.3, 68.1, 68.1, "
        "68.0, 67.9 and 64.0 %, so within 2 points up to 2048, with a rate in proportion to the "
        "batch. Here too it is, and 60 epochs are 4,000, 2,000 and 1,000 steps: at a scale where "
        "few steps matter too, this is harder than the paper's comparison."
    ),
)
