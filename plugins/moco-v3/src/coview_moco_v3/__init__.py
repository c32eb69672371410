"""MoCo v3 (Chen, Xie & He 2021, arXiv:2104.02057).

The defaults are the ViT-S recipe of the paper and its released code; the preset
``resnet`` is that code's ResNet-50 for 300 epochs.
"""

from coview import Recipe, Use, cosine

__all__ = ["recipe"]

recipe = Recipe(
    summary="train vision transformers with a momentum encoder, a predictor and in-batch negatives",
    paper="arXiv:2104.02057",
    views=Use(
        "byol",
        crop_scale=(0.08, 1.0),
        interpolation="bilinear",
        blur_kind="pillow",
        order=("crop", "jitter", "grey", "blur", "solarize", "flip"),
    ),
    encoder=Use(
        "predictor",
        dim=256,
        hidden=4096,
        layers=3,
        hidden_bias=False,
        output_norm="batch-plain",
        predictor_hidden=4096,
        predictor_output_norm="batch-plain",
    ),
    target=Use("momentum", decay=cosine(0.99, 1.0)),
    negatives=Use("in-batch", views="key"),
    loss=Use("info-nce", temperature=0.2, scale="2-temperature", reduction="sum"),
    backbone=Use("moco-v3-vit-small"),
    optimizer=Use("adamw", lr=1.5e-4, lr_rule="linear", weight_decay=0.1),
    schedule=Use("cosine", warmup_epochs=40, warmup_count="steps"),
    epochs=300,
    batch_size=4096,
    # The released code's rate for vision transformers, and below for ResNets; the paper uses
    # batches of 4096 and searches for the rate.
    probe=Use(
        "sgd",
        source="arXiv:2104.02057, released code",
        lr=3.0,
        epochs=90,
        batch_size=1024,
        per="epoch",
    ),
    presets={
        "resnet": {
            "source": "facebookresearch/moco-v3, CONFIG.md: ResNet-50, 300 epochs, linear 72.8",
            "backbone": Use("resnet50", zero_init_last=True),
            "views": {"crop_scale": (0.2, 1.0)},
            "encoder": {"layers": 2, "predictor_output_norm": "none"},
            "loss": {"temperature": 1.0},
            "optimizer": Use(
                "lars",
                lr=0.3,
                lr_rule="linear",
                momentum=0.9,
                weight_decay=1e-6,
                eta=1e-3,
                rate_in_momentum=False,
            ),
            "schedule": {"warmup_epochs": 10},
            "probe": {"lr": 0.1},
        },
        "small": {
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/mocov3.yaml: CIFAR-10 93.10 "
            "by its online probe",
            "backbone": Use("resnet18", stem="3x3", stem_padding=2),
            "views": {"blur_p": 0.0, "second_blur_p": 0.0, "interpolation": "bicubic"},
            "encoder": {"layers": 2, "predictor_output_norm": "none"},
            "optimizer": Use(
                "larc",
                lr=0.3,
                lr_rule="linear",
                momentum=0.9,
                weight_decay=1e-6,
                eta=0.02,
                clip=True,
                exclude_norm_and_bias=True,
            ),
            "schedule": {"warmup_epochs": 10, "warmup_start": 3e-5, "warmup_closed": True},
            "probe": {"lr": 0.1},
            "epochs": 1000,
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
                "blur_kind": "gaussian",
                "second_solarize_p": 0.0,
            },
            "encoder": {"hidden": 512, "predictor_hidden": 512, "layers": 2, "dim": 128},
            "target": {"decay": cosine(0.97, 1.0)},
            "loss": {"temperature": 0.1},
            "optimizer": Use("adamw", lr=0.005),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
