"""BYOL (Grill et al. 2020, arXiv:2006.07733).

The defaults are the paper's main recipe: 1000 epochs at batch size 4096.
"""

from coview import Recipe, Use, cosine

__all__ = ["recipe"]

recipe = Recipe(
    summary="predict the projection of another view by a moving average of the network",
    paper="arXiv:2006.07733",
    views=Use("byol"),
    encoder=Use("predictor", dim=256, hidden=4096, predictor_hidden=4096),
    target=Use("momentum", decay=cosine(0.996, 1.0)),
    loss=Use("regression"),
    backbone=Use("resnet50"),
    optimizer=Use(
        "lars",
        lr=0.2,
        lr_rule="linear",
        momentum=0.9,
        weight_decay=1.5e-6,
        eta=1e-3,
        rate_in_momentum=False,
    ),
    schedule=Use("cosine", warmup_epochs=10),
    epochs=1000,
    batch_size=4096,
    # The paper tries five learning rates on held-out images; the released code uses this one.
    probe=Use(
        "sgd",
        source="arXiv:2006.07733, appendix C.1 and released code",
        lr=0.2,
        epochs=80,
        batch_size=1024,
        nesterov=True,
    ),
    presets={
        # Richemond et al. 2020, arXiv:2010.10241: group normalisation with weight
        # standardisation everywhere, and no batch statistics.
        "no-batch-statistics": {
            "backbone": Use("resnet50-gn-ws"),
            "encoder": {"norm": "group", "standardized": True},
        },
        # solo-learn's published CIFAR recipe, which has no blur.
        "small": {
            "backbone": Use("resnet18", stem="3x3"),
            "views": {"blur_p": 0.0, "second_blur_p": 0.0},
            "target": {"decay": cosine(0.99, 1.0)},
            "optimizer": {"lr": 1.0, "weight_decay": 1e-5, "eta": 0.02, "clip": True},
            "schedule": {"warmup_start": 3e-5},
            "batch_size": 256,
        },
        # Ours, not a paper's: for a network of 0.3 million parameters and minutes on a processor.
        "tiny": {
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "crop_scale": (0.6, 1.0),
                "blur_p": 0.5,
                "second_blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
                "second_solarize_p": 0.0,
            },
            "encoder": {"hidden": 512, "predictor_hidden": 512},
            "target": {"decay": 0.95},
            "optimizer": Use("sgd", lr=0.2, weight_decay=5e-4),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
