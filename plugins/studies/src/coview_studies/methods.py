"""All methods on small data sets, each against pixels and against its own untrained network."""

from coview.studies import KNN, RAW_PIXELS, UNTRAINED, Above, Study, Variant

__all__ = ["fashion_mnist", "later", "moved_digits", "transformers"]

METHODS = (
    *("instdisc", "cpc", "cmc", "moco", "simclr", "moco-v2"),
    *("simclr-v2", "swav", "byol", "simsiam", "moco-v3", "dino"),
)
LATER = ("supcon", "densecl", "barlow-twins", "nnclr", "vicreg")
MEASURES = {"knn": KNN, "untrained": UNTRAINED, "raw": RAW_PIXELS}
SCALE = (
    "The papers train large networks on ImageNet, where all of this is known; here each trains a "
    "network of 0.3 million parameters{more} for minutes on a processor, with its preset for "
    "that, so the table does not rank the methods."
)
OF_THE_TWELVE = (
    f"{SCALE.format(more=' (CMC two)')} Images are grey: CMC's views are low and high frequencies "
    "instead of light and colour."
)


def trained(methods: tuple[str, ...], epochs: int, **other: int) -> dict[str, Variant]:
    """Return a variant a method: all with as many epochs but those named."""
    return {one: Variant(method=one, epochs=other.get(one, epochs)) for one in methods}


def above_both(methods: tuple[str, ...]) -> tuple[Above, ...]:
    """Return the expectation that each is above raw pixels and its untrained network."""
    return tuple(Above(one, f"{one}:{other}") for one in methods for other in ("untrained", "raw"))


moved_digits = Study(
    claim=(
        "Every method learns to tell digits apart without labels, wherever and however large they "
        "are drawn: better than pixels, and better than its untrained network"
    ),
    source="the twelve methods' papers (coview list)",
    common=Variant(preset="tiny", data="moved-digits", set={"views.flip_p": 0.0}),
    # CPC encodes 25 patches an image, so an epoch costs as much as eight of another method's.
    variants=trained(METHODS, epochs=100, cpc=12),
    measure=MEASURES,
    expect=above_both(METHODS),
    notes=f"{OF_THE_TWELVE} All train for 100 epochs, 3,300 steps, but CPC for 12.",
    quick=Variant(epochs=1),
)

later = Study(
    claim=(
        "The later methods whose networks are convolutional learn to tell digits apart as well: "
        "better than pixels, and better than their untrained networks"
    ),
    source=(
        "arXiv:2004.11362 (with labels), arXiv:2011.09157, arXiv:2103.03230, arXiv:2104.14548, "
        "arXiv:2105.04906"
    ),
    common=moved_digits.common,
    variants=trained(LATER, epochs=100),
    measure=MEASURES,
    expect=above_both(LATER),
    notes=f"{SCALE.format(more='')} All train for 100 epochs, 3,300 steps. SupCon learns from "
    "the labels of the training images.",
    quick=Variant(epochs=1),
)

fashion_mnist = Study(
    claim=(
        "Every method learns to tell clothes apart without labels: better than pixels, and better "
        "than its untrained network"
    ),
    source="the twelve methods' papers (coview list); data: arXiv:1708.07747",
    common=Variant(preset="tiny", data="fashion-mnist"),
    variants=trained(METHODS, epochs=10, cpc=2),
    measure=MEASURES,
    expect=above_both(METHODS),
    notes=(
        f"{OF_THE_TWELVE} The 60,000 images are seen 10 times, 4,680 steps, by CPC twice; views "
        "are flipped, since clothes are symmetric. Pixels are a hard baseline: the clothes are "
        "centred and of one size. Recorded with the files of Debian's package "
        "dataset-fashion-mnist: --data idx:/usr/share/datasets/fashion-mnist. The short form "
        "trains on the moved digits instead."
    ),
    # Nothing on 60,000 images is short.
    quick=Variant(data="moved-digits", epochs=1),
)

transformers = Study(
    claim="MoCo v3 and DINO, which were made for transformers, train one from scratch",
    source="arXiv:2104.02057, table 1; arXiv:2104.14294, table 2",
    common=Variant(
        preset="tiny",
        data="moved-digits",
        epochs=30,
        set={"views.flip_p": 0.0, "backbone.patch": 8},
    ),
    variants={
        "moco-v3": Variant(
            method="moco-v3", backbone="moco-v3-vit-tiny", epochs=10, set={"optimizer.lr": 0.001}
        ),
        "dino": Variant(method="dino", backbone="test_vit", set={"optimizer.lr": 0.001}),
    },
    measure=MEASURES,
    expect=(
        Above("moco-v3", "moco-v3:untrained", by=0.2),
        Above("dino", "dino:untrained", by=0.2),
    ),
    notes=(
        "The papers' smallest is a ViT-S/16 on ImageNet. Here images of 32 pixels are cut into 16 "
        "patches: for MoCo v3 four blocks of width 192 with the paper's fixed positions and frozen "
        "projection, for DINO timm's test_vit. Twenty points above the untrained network are less "
        "than the same methods gain with a ResNet-10 here. The learning rate is a fifth of the "
        "preset's or less, which is for a ResNet; DINO's head keeps the preset's batch norm, which "
        "the paper's has not."
    ),
    quick=Variant(epochs=1),
)
