"""SimCLR (Chen et al. 2020, arXiv:2002.05709).

The defaults are the ImageNet recipe of the paper and its first released code.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="match two strongly augmented views of an image, against the rest of a large batch",
    paper="arXiv:2002.05709",
    views=Use("simclr"),
    encoder=Use("projection", dim=128),
    negatives=Use("in-batch"),
    loss=Use("info-nce", temperature=0.1),
    backbone=Use("resnet50", zero_init_last=True),
    optimizer=Use("lars", lr=0.3, lr_rule="linear", momentum=0.9, weight_decay=1e-6, eta=1e-3),
    schedule=Use("cosine", warmup_epochs=10),
    epochs=1000,
    batch_size=4096,
    # The logits start at zero.
    probe=Use(
        "sgd",
        source="arXiv:2002.05709, appendix B.6",
        lr=0.1,
        epochs=90,
        batch_size=4096,
        nesterov=True,
        init_std=0.0,
    ),
    # 30 epochs with 10 % of the labels, 60 with 1 %.
    finetune=Use(
        "sgd",
        source="arXiv:2002.05709, appendix B.5",
        lr=0.05,
        epochs=30,
        few_epochs=60,
        batch_size=4096,
        nesterov=True,
        init_std=0.0,
    ),
    presets={
        # ResNet-18, half the colour strength, no blur.
        "small": {
            "source": "ours: google-research/simclr 85e8552's CIFAR-10 command, whose brightness "
            "adds; here it multiplies, as in the later code",
            "backbone": Use("resnet18", stem="3x3", zero_init_last=True),
            "views": {"jitter": (0.4, 0.4, 0.4, 0.1), "blur_p": 0.0},
            "loss": {"temperature": 0.5},
            "optimizer": {"lr": 1.0},
            "batch_size": 512,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "crop_scale": (0.3, 1.0),
                "jitter": (0.4, 0.4, 0.4, 0.1),
                "blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
            },
            "loss": {"temperature": 0.1},
            "optimizer": Use("adamw", lr=0.01),
            "schedule": Use("cosine", warmup_epochs=3, per="step"),
            "epochs": 60,
            "batch_size": 128,
        },
    },
)
