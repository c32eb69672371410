"""Contrastive multiview coding (Tian et al. 2020, arXiv:1906.05849).

The defaults are the ImageNet recipe of the paper and its released code: two
ResNet-50, one for L and one for ab.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="make luminance and chrominance of an image agree, each with its own network",
    paper="arXiv:1906.05849",
    views=Use("colour-groups", space="lab", crop_scale=(0.08, 1.0)),
    encoder=Use("per-view", dim=128),
    target=Use("memory-bank", momentum=0.5, draws=4096, per_view=True),
    negatives=Use("memory-bank"),
    loss=Use("nce", temperature=0.07, reduction="sum"),
    backbone=Use("resnet50"),
    optimizer=Use("sgd", lr=0.03, momentum=0.9, weight_decay=1e-4),
    # 4096 noise samples, as for the released weights (the code's later default is 16384).
    # The released code counts epochs from 1 and divides the rate after epochs 120, 160 and 200.
    schedule=Use("steps", milestones=(120, 160, 200), gamma=0.1),
    epochs=240,
    batch_size=128,
    # On the features of both networks, with the released code's rate for ResNet-50.
    probe=Use(
        "sgd",
        source="arXiv:1906.05849, released code",
        lr=30.0,
        epochs=60,
        drops=(1 / 2, 2 / 3, 5 / 6),
        factor=0.2,
    ),
    presets={
        # With a constant Z, NCE fails on a small data set, whose rows are visited again every few
        # steps; and its bank is small enough to compare with all of it.
        "small": {
            "source": "ours: the paper's temperature for STL-10 and its code's softmax, against "
            "the whole bank; it has no recipe for images this small",
            "backbone": Use("resnet18", stem="3x3"),
            "views": {"crop_scale": (0.2, 1.0)},
            "target": {"draws": 0},
            "loss": Use("non-parametric-softmax", temperature=0.1, reduction="sum"),
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {"crop_scale": (0.6, 1.0)},
            "target": {"draws": 0},
            "loss": Use("non-parametric-softmax", temperature=0.1, reduction="sum"),
            "optimizer": Use("adamw", lr=0.01),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
