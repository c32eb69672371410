"""SimSiam (Chen & He 2021, arXiv:2011.10566).

The defaults are the ImageNet recipe of the released code: 100 epochs at batch size
512, a learning rate that falls once per epoch, and a constant one for the
predictor. Deviation: the projector's last layer has no bias; that code has a
frozen one, which the batch norm after it removes again.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="two views predict each other; only a stopped gradient prevents collapse",
    paper="arXiv:2011.10566",
    views=Use(
        "simclr",
        crop_scale=(0.2, 1.0),
        interpolation="bilinear",
        jitter=(0.4, 0.4, 0.4, 0.1),
        blur_kind="pillow",
        normalize=True,
        order=("crop", "jitter", "grey", "blur", "flip"),
    ),
    encoder=Use(
        "predictor",
        dim=2048,
        hidden=2048,
        layers=3,
        hidden_bias=False,
        output_norm="batch-plain",
        predictor_hidden=512,
        predictor_output_bias=True,
        predictor_fixed_rate=True,
    ),
    target=Use("stop-gradient"),
    loss=Use("regression", form="negative-cosine", reduction="mean"),
    backbone=Use("resnet50", zero_init_last=True),
    optimizer=Use("sgd", lr=0.05, lr_rule="linear", momentum=0.9, weight_decay=1e-4),
    schedule=Use("cosine", per="epoch"),
    epochs=100,
    batch_size=512,
    # The released code's rate; the paper's text says 0.02.
    probe=Use(
        "sgd",
        source="arXiv:2011.10566, released code",
        lr=0.1,
        epochs=90,
        batch_size=4096,
        larc=True,
    ),
    presets={
        "small": {
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/simsiam.yaml: CIFAR-10 90.51 "
            "by its online probe",
            "backbone": Use("resnet18", stem="3x3", stem_padding=2, zero_init_last=False),
            "views": {"crop_scale": (0.08, 1.0), "interpolation": "bicubic"},
            "optimizer": {"lr": 0.5, "weight_decay": 1e-5},
            "schedule": {
                "per": "step",
                "warmup_epochs": 10,
                "warmup_start": 3e-5,
                "warmup_count": "steps",
                "warmup_closed": True,
            },
            "epochs": 1000,
            "batch_size": 256,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "crop_scale": (0.6, 1.0),
                "blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
                "blur_kind": "gaussian",
            },
            "encoder": {"dim": 512, "hidden": 512, "layers": 2, "predictor_hidden": 128},
            "optimizer": Use("sgd", lr=0.5, weight_decay=5e-4),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
