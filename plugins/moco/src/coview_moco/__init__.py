"""MoCo (He et al. 2020, arXiv:1911.05722).

The defaults are the ImageNet recipe of the paper and its released code, in which
each of eight devices batch-normalises 32 images.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="find an image's key from a slowly moving encoder among a large queue of past keys",
    paper="arXiv:1911.05722",
    views=Use("instdisc", count=2),
    encoder=Use("linear", dim=128, norm_groups=8),
    target=Use("momentum", decay=0.999, shuffle=True),
    negatives=Use("queue", size=65536),
    loss=Use("info-nce", temperature=0.07),
    backbone=Use("resnet50"),
    optimizer=Use("sgd", lr=0.03, momentum=0.9, weight_decay=1e-4),
    schedule=Use("steps", milestones=(120, 160), gamma=0.1),
    epochs=200,
    batch_size=256,
    probe=Use("sgd", source="arXiv:1911.05722, section 4.1", lr=30.0, epochs=100, drops=(0.6, 0.8)),
    presets={
        "small": {
            "source": "facebookresearch/moco, branch colab-notebook: CIFAR-10, asymmetric, 200 "
            "epochs, kNN 82.6",
            "backbone": Use("resnet18", stem="3x3"),
            "views": {
                "crop_scale": (0.08, 1.0),
                "jitter": (0.4, 0.4, 0.4, 0.1),
                "jitter_p": 0.8,
                "order": ("crop", "flip", "jitter", "grey"),
            },
            "target": {"decay": 0.99},
            "negatives": {"size": 4096},
            "loss": {"temperature": 0.1},
            "optimizer": {"lr": 0.06, "weight_decay": 5e-4},
            "schedule": Use("cosine", per="epoch", first_epoch=1),
            "batch_size": 512,
            "knn": Use(
                "knn",
                source="facebookresearch/moco, branch colab-notebook",
                k=200,
                temperature=0.1,
            ),
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "crop_scale": (0.6, 1.0),
                "jitter": (0.4, 0.4, 0.4, 0.1),
                "jitter_p": 0.8,
                "order": ("crop", "flip", "jitter", "grey"),
            },
            "encoder": {"norm_groups": 4},
            "target": {"decay": 0.99},
            "negatives": {"size": 1024},
            "loss": {"temperature": 0.1},
            "optimizer": Use("adamw", lr=0.01),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 60,
            "batch_size": 128,
        },
    },
)
