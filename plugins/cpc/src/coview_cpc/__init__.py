"""Contrastive predictive coding (van den Oord et al. 2018, arXiv:1807.03748)."""

from typing import Any

from coview import Recipe, Use

__all__ = ["recipe", "recipe_audio", "recipe_v2"]

# Released small-image settings (the STL-10 baseline of Löwe et al. 2019, arXiv:1905.11786):
# 7 x 7 patches of a quarter of the image, three stages of ResNet-v2-50, and prediction from the
# second row below on, since neighbours overlap. Two things are from CPC v2, whose paper found
# them better: layer norm, and every patch of the batch as a negative (the baseline draws 16).
SMALL: dict[str, Any] = {
    "source": "ours: the STL-10 baseline of arXiv:1905.11786 with layer norm and every patch of "
    "the batch as a negative",
    "backbone": Use("cpc-resnet50", stem="3x3"),
    "views": {"size": None, "padding": 2, "patch": None, "stride": None, "kept": None},
    "encoder": {"norm": "layer", "first": 2, "last": 6},
    "data": {"size": None},
    "epochs": 300,
    "batch_size": 32,
}

recipe = Recipe(
    summary="predict the patches below from those above, against the other patches of the batch",
    paper="arXiv:1807.03748",
    # A random 256 x 256 part of a 300 x 300 image: 7 x 7 grey patches of 64, 32 apart.
    views=Use("patch-grid", size=256, patch=64, stride=32, kept=60),
    encoder=Use("autoregressive", context="masked-conv", norm="none", first=1, last=5),
    negatives=Use("patches"),
    loss=Use("info-nce", cosine=False, temperature=1.0),
    backbone=Use("cpc-resnet101"),
    # Adam, which AdamW equals without weight decay. The paper gives no number of epochs.
    optimizer=Use("adamw", lr=2e-4, weight_decay=0.0),
    schedule=Use("constant"),
    data={"size": 300},
    epochs=200,
    batch_size=512,
    # 0.1, 0.01 and 0.001 for 50,000, 25,000 and 10,000 updates of 2048 images: 136 passes
    # over ImageNet's 1,281,167.
    probe=Use(
        "sgd",
        source="arXiv:1807.03748, section 3.2",
        lr=0.0125,
        epochs=136,
        batch_size=2048,
        drops=(50 / 85, 75 / 85),
        factor=0.1,
    ),
    presets={
        "small": SMALL,
        "tiny": SMALL
        | {
            "source": "ours: 5 x 5 patches of 32 pixels, 0.3 million parameters, minutes on a "
            "processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": SMALL["views"] | {"patch": 12, "stride": 5},
            "encoder": {
                "context": "gru",
                "context_hidden": 128,
                "context_layers": 1,
                "norm": "layer",
                "first": 1,
                "last": 4,
            },
            "optimizer": {"lr": 3e-3},
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 12,
            "batch_size": 64,
        },
    },
)

recipe_v2 = Recipe(
    summary="CPC with layer norm, four directions, augmented patches and a larger network",
    paper="arXiv:1905.09272",
    # 6 x 6 colour patches of 80, 36 apart. The paper names the operations on patches; except
    # for the dropped colours, their strengths and probabilities are this package's choice.
    views=Use(
        "patch-grid",
        size=260,
        patch=80,
        stride=36,
        grey=False,
        drop_colours_p=1.0,
        jitter_p=0.8,
        affine_p=0.2,
        elastic_p=0.2,
    ),
    # The published pseudo-code skips two rows and predicts the third.
    encoder=Use(
        "autoregressive",
        context="masked-conv",
        norm="layer",
        first=3,
        last=3,
        directions=4,
        dim=64,
        scale=0.1,
    ),
    negatives=Use("patches"),
    loss=Use("info-nce", cosine=False, temperature=1.0),
    backbone=Use("cpc-resnet161"),
    # Ours: no optimiser, schedule, epochs or batch size of CPC v2 is published. These are CPC's.
    optimizer=Use("adamw", lr=2e-4, weight_decay=0.0),
    schedule=Use("constant"),
    data={"size": 300},
    epochs=200,
    batch_size=512,
    presets={
        "small": SMALL
        | {
            "source": "ours: small CPC with three steps in each of four directions, and a CIFAR-10 "
            "port's 500 epochs",
            "encoder": {"first": 2, "last": 4},
            "epochs": 500,
        },
    },
)

recipe_audio = Recipe(
    summary="predict the next 12 frames of sound, 10 ms each, from the frames so far",
    paper="arXiv:1807.03748",
    # Random windows of 20480 samples (1.28 s at 16 kHz) from 2.56 s of a recording.
    views=Use("frames", window=20480, frame=465, hop=160),
    encoder=Use(
        "autoregressive",
        context="gru",
        context_hidden=256,
        context_layers=1,
        norm="none",
        first=1,
        last=12,
    ),
    # The frames of all 64 windows; in the paper, of the 8 windows on a GPU.
    negatives=Use("patches"),
    loss=Use("info-nce", cosine=False, temperature=1.0),
    backbone=Use("cpc-audio"),
    optimizer=Use("adamw", lr=2e-4, weight_decay=0.0),
    schedule=Use("constant"),
    data={"size": 40960},
    # About 300,000 updates as in the paper, in epochs of LibriSpeech's 28,539 recordings.
    epochs=670,
    batch_size=64,
)
