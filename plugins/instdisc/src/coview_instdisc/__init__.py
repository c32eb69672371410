"""InstDisc: every image is its own class (Wu et al. 2018, arXiv:1805.01978).

The defaults are the ImageNet recipe of the paper and its released code.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="tell every image from all others, with a memory bank as the classifier",
    paper="arXiv:1805.01978",
    views=Use("instdisc"),
    encoder=Use("linear", dim=128),
    target=Use("memory-bank", momentum=0.5, draws=4096),
    negatives=Use("memory-bank"),
    loss=Use("nce", temperature=0.07),
    backbone=Use("resnet50"),
    optimizer=Use("sgd", lr=0.03, momentum=0.9, weight_decay=1e-4),
    schedule=Use("steps", milestones=(120, 160), gamma=0.1),
    epochs=200,
    batch_size=256,
    # Section 4.2 evaluates each layer of the network; this is the last. It does not give C.
    probe=Use("svm", source="arXiv:1805.01978, section 4.2 (C is not given there)", cost=1.0),
    knn=Use(
        "knn",
        source="arXiv:1805.01978, section 3.4",
        k=200,
        temperature=0.07,
        features="projection",
    ),
    # Section 4.3: the rate is divided by ten every 30 epochs. Batch size as in pre-training.
    finetune=Use(
        "sgd",
        source="arXiv:1805.01978, section 4.3",
        lr=0.01,
        epochs=70,
        drops=(30 / 70, 60 / 70),
        factor=0.1,
    ),
    presets={
        # Without flips, and with the full softmax: with a constant Z, NCE fails on a small data
        # set, whose rows are visited again every few steps.
        "small": {
            "source": "zhirongw/lemniscate.pytorch f7cfe29, cifar.py: CIFAR-10, kNN 80.8",
            "backbone": Use("resnet18", stem="3x3"),
            "views": {"order": ("crop", "jitter", "grey")},
            "target": {"draws": 0},
            "loss": Use("non-parametric-softmax", temperature=0.1),
            "optimizer": {"weight_decay": 5e-4},
            "knn": {"temperature": 0.1, "source": "zhirongw/lemniscate.pytorch, cifar.py"},
            "batch_size": 128,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {"crop_scale": (0.6, 1.0)},
            "target": {"draws": 0},
            "loss": Use("non-parametric-softmax", temperature=0.1),
            "optimizer": Use("adamw", lr=0.01),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 60,
            "batch_size": 128,
        },
    },
)
