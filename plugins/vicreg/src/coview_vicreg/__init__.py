"""VICReg (Bardes et al. 2022, arXiv:2105.04906); Barlow Twins (Zbontar et al., arXiv:2103.03230).

The defaults are the ImageNet recipes of both papers: 1000 epochs at batch size 2048. Where
the papers' texts and released codes differ, VICReg's loss is scaled as in the code, and its
learning rate ends at the text's 0.002 (the code's 0.0016); Barlow Twins is the code (the text
has a lambda of 0.005 and a weight decay of 1.5e-6).
"""

from typing import Any

from coview import Recipe, Use

__all__ = ["recipe", "recipe_barlow_twins"]

_LARS: dict[str, Any] = {
    "lr": 0.2,
    "lr_rule": "linear",
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "eta": 1e-3,
    "rate_in_momentum": False,
}

# What solo-learn's CIFAR-10 recipes of both share.
_SMALL: dict[str, Any] = {
    "backbone": Use("resnet18", stem="3x3", stem_padding=2, zero_init_last=False),
    "optimizer": Use(
        "larc",
        lr=0.3,
        lr_rule="linear",
        momentum=0.9,
        weight_decay=1e-4,
        eta=0.02,
        clip=True,
        exclude_norm_and_bias=True,
    ),
    "schedule": {"warmup_start": 3e-5, "warmup_closed": True, "final": 0.0},
    "epochs": 1000,
    "batch_size": 256,
}

_SMALL_ORDER = ("crop", "jitter", "grey", "blur", "solarize", "flip")

_TINY: dict[str, Any] = {
    "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
    "backbone": Use("resnet10-quarter", stem="7x7"),
    "views": {
        "crop_scale": (0.6, 1.0),
        "blur_p": 0.5,
        "second_blur_p": 0.5,
        "blur_sigma": (0.1, 1.0),
        "blur_kind": "gaussian",
        "second_solarize_p": 0.0,
    },
    "encoder": {"dim": 512, "hidden": 512, "layers": 2, "plain_rate": 1.0},
    "optimizer": Use("adamw", lr=0.002),
    "schedule": Use("cosine", warmup_epochs=1, final=0.0),
    "epochs": 60,
    "batch_size": 128,
}

recipe = Recipe(
    summary="make views agree while every column of a wide embedding varies, each on its own",
    paper="arXiv:2105.04906",
    views=Use("byol", blur_kind="pillow"),
    encoder=Use("expander", dim=8192, hidden=8192, layers=3),
    loss=Use("vicreg", invariance=25.0, variance=25.0, covariance=1.0),
    backbone=Use("resnet50", zero_init_last=True),
    optimizer=Use("lars", **_LARS),
    schedule=Use("cosine", warmup_epochs=10, warmup_count="steps", final=0.002),
    epochs=1000,
    batch_size=2048,
    probe=Use(
        "sgd",
        source="arXiv:2105.04906, released code",
        lr=0.02,
        epochs=100,
        weight_decay=1e-6,
        per="epoch",
    ),
    presets={
        # Its variance term is a sum over views, where this loss has the mean.
        "small": {
            **_SMALL,
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/vicreg.yaml: CIFAR-10 92.07 "
            "by its online probe",
            "views": {
                "crop_scale": (0.2, 1.0),
                "order": _SMALL_ORDER,
                "blur_p": 0.0,
                "second_blur_p": 0.0,
                "solarize_p": 0.1,
                "second_solarize_p": 0.1,
            },
            "encoder": {"dim": 2048, "hidden": 2048},
            "loss": {"variance": 50.0},
        },
        "tiny": _TINY,
    },
)

recipe_barlow_twins = Recipe(
    summary="make the correlations of two views' embeddings the identity matrix",
    paper="arXiv:2103.03230",
    views=Use("byol", blur_kind="pillow"),
    # 0.0048 for biases and normalisation layers, where weights have 0.2.
    encoder=Use(
        "expander", dim=8192, hidden=8192, layers=3, hidden_bias=False, plain_rate=0.0048 / 0.2
    ),
    loss=Use("barlow-twins", redundancy=0.0051),
    backbone=Use("resnet50", zero_init_last=True),
    optimizer=Use("lars", **_LARS),
    # A thousandth of the peak, 0.2 x 2048 / 256.
    schedule=Use("cosine", warmup_epochs=10, warmup_count="steps", final=0.0016),
    epochs=1000,
    batch_size=2048,
    probe=Use(
        "sgd",
        source="arXiv:2103.03230, released code",
        lr=0.3,
        epochs=100,
        weight_decay=1e-6,
        per="epoch",
    ),
    presets={
        "small": {
            **_SMALL,
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/barlow.yaml: CIFAR-10 92.10 "
            "by its online probe",
            "views": {"blur_p": 0.0, "second_blur_p": 0.0, "order": _SMALL_ORDER},
            "encoder": {"dim": 2048, "hidden": 2048, "hidden_bias": True, "plain_rate": 1.0},
            "loss": {"weight": 0.1},
        },
        # The narrower the embedding, the fewer correlations there are to keep down.
        "tiny": {**_TINY, "loss": {"redundancy": 0.02}},
    },
)
