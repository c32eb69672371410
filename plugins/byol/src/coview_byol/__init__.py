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
        "no-batch-statistics": {
            "source": "ours: the paper's recipe with the group normalisation and weight "
            "standardisation of arXiv:2010.10241, whose other settings are not all published",
            "backbone": Use("resnet50-gn-ws"),
            "encoder": {"norm": "group", "standardized": True},
        },
        "small": {
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/byol.yaml: CIFAR-10 92.58 "
            "by its online probe",
            "backbone": Use("resnet18", stem="3x3", stem_padding=2),
            "views": {
                "blur_p": 0.0,
                "second_blur_p": 0.0,
                "order": ("crop", "jitter", "grey", "blur", "solarize", "flip"),
            },
            "encoder": {"output_bias": True, "predictor_output_bias": True},
            "target": {"decay": cosine(0.99, 1.0)},
            "optimizer": Use(
                "larc",
                lr=1.0,
                lr_rule="linear",
                momentum=0.9,
                weight_decay=1e-5,
                eta=0.02,
                clip=True,
                exclude_norm_and_bias=True,
            ),
            "schedule": {"warmup_start": 3e-5, "warmup_count": "steps", "warmup_closed": True},
            "batch_size": 256,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
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
