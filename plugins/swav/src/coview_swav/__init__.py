"""SwAV (Caron et al. 2020, arXiv:2006.09882).

The defaults are the ImageNet recipe of the released script for 800 epochs at batch
size 4096; the preset ``batch-256`` is the script for small batches, with a queue
and without warm-up. Deviation: images are standardised by the data set's own
standard deviation; that code has 0.228 for red.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

# What two presets share.
_SMALL_WARMUP = {"warmup_start": 3e-5, "warmup_count": "images", "warmup_closed": False}
_SMALL_OPTIMIZER = Use(
    "lars",
    lr=0.6,
    lr_rule="linear",
    momentum=0.9,
    weight_decay=1e-6,
    eta=0.02,
    clip=True,
    rate_in_momentum=False,
)

recipe = Recipe(
    summary="predict the balanced cluster code of one view from the other views",
    paper="arXiv:2006.09882",
    views=Use("multi-crop", blur_kind="pillow"),
    # 64 GPUs normalise batches in groups of 8.
    encoder=Use(
        "prototypes", dim=128, hidden=2048, prototypes=3000, freeze_steps=313, norm_groups=8
    ),
    loss=Use("swapped-prediction", temperature=0.1, epsilon=0.05, iterations=3),
    backbone=Use("resnet50"),
    # 0.3 x 4096 / 256 is the released script's 4.8.
    optimizer=Use(
        "larc", lr=0.3, lr_rule="linear", momentum=0.9, weight_decay=1e-6, eta=1e-3, clip=False
    ),
    schedule=Use(
        "cosine",
        warmup_epochs=10,
        warmup_start=0.3,
        warmup_count="steps",
        warmup_closed=True,
        final=0.0048,
    ),
    epochs=800,
    batch_size=4096,
    probe=Use(
        "sgd", source="arXiv:2006.09882, released code", lr=0.3, epochs=100, weight_decay=1e-6
    ),
    # Learning rates of trunk and classifier, with 10 % of the labels and with 1 %.
    finetune=Use(
        "sgd",
        source="arXiv:2006.09882, released code",
        lr=0.01,
        head_lr=0.2,
        few_lr=0.02,
        few_head_lr=5.0,
        epochs=20,
        drops=(0.6, 0.8),
        factor=0.2,
    ),
    presets={
        "batch-256": {
            "source": "facebookresearch/swav, scripts/swav_400ep_bs256_pretrain.sh: linear 74.3",
            "encoder": {"freeze_steps": 5005, "norm_groups": 1},
            "negatives": Use("queue", size=3840, per_view=True, from_epoch=15, once_full=True),
            "optimizer": {"lr": 0.6, "lr_rule": "linear"},
            "schedule": {"warmup_epochs": 0, "warmup_start": 0.0, "final": 0.0006},
            "epochs": 400,
            "batch_size": 256,
        },
        # Two crops, a queue from epoch 50.
        "small": {
            "source": "ours: solo-learn's rates, lengths and head for CIFAR-10; it fills the queue "
            "from the start and its gradient passes the prototypes' normalisation",
            "backbone": Use("resnet18", stem="3x3"),
            "views": {
                "size": "none",
                "count": 2,
                "crop_scale": (0.08, 1.0),
                "blur_kind": "gaussian",
            },
            "encoder": {"freeze_steps": 0, "freeze_epochs": 2.0, "norm_groups": 1},
            "negatives": Use("queue", size=3840, per_view=True, from_epoch=50, once_full=True),
            "optimizer": _SMALL_OPTIMIZER,
            "schedule": {**_SMALL_WARMUP, "final": 0.0},
            "epochs": 1000,
            "batch_size": 256,
        },
        # The same with six crops of 18 pixels beside the two of 32.
        "small-multi-crop": {
            "source": "ours: as small, with solo-learn's sizes of crops; its colours are weaker "
            "and its second view is solarised",
            "backbone": Use("resnet18", stem="3x3"),
            "views": {
                "size": ("none", 18),
                "crop_scale": ((0.2, 1.0), (0.08, 0.5)),
                "blur_kind": "gaussian",
            },
            "encoder": {"freeze_steps": 0, "freeze_epochs": 2.0, "norm_groups": 1},
            "negatives": Use("queue", size=3840, per_view=True, from_epoch=50, once_full=True),
            "optimizer": _SMALL_OPTIMIZER,
            "schedule": {**_SMALL_WARMUP, "final": 6e-4},
            "epochs": 1000,
            "batch_size": 256,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "size": "none",
                "count": 2,
                "crop_scale": (0.6, 1.0),
                "blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
                "blur_kind": "gaussian",
            },
            "loss": {"epsilon": 0.03},
            "encoder": {
                "hidden": 512,
                "prototypes": 128,
                "freeze_steps": 0,
                "freeze_epochs": 1.0,
                "norm_groups": 1,
            },
            "optimizer": Use("sgd", lr=0.5, weight_decay=5e-4),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
