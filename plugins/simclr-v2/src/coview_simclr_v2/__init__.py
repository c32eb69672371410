"""SimCLR v2 (Chen et al. 2020, arXiv:2006.10029): its first stage, pre-training.

The defaults are the paper's: its largest network, 800 epochs at batch size 4096.
"""

from coview import Recipe, Use

__all__ = ["recipe", "recipe_with_memory"]

# No layer has a bias, and the last batch norm has no shift, as in SimCLR's released code. The
# head is as wide as the backbone's features; head[0] is the layer to fine-tune from.
PARTS = {
    "paper": "arXiv:2006.10029",
    "views": Use("simclr"),
    "encoder": Use("projection", layers=3, dim=128),
    "loss": Use("info-nce", temperature=0.1),
    "backbone": Use("resnet152-3x-sk", zero_init_last=True),
    # 0.1 x the square root of the batch size: 6.4 at 4096. Warm-up is 5 % of the training.
    "optimizer": Use("lars", lr=0.1, lr_rule="sqrt", momentum=0.9, weight_decay=1e-4, eta=1e-3),
    "schedule": Use("cosine", warmup_epochs=40),
    "epochs": 800,
    "batch_size": 4096,
    "probe": Use(
        "sgd",
        source="arXiv:2006.10029, as SimCLR",
        lr=0.1,
        epochs=90,
        batch_size=4096,
        nesterov=True,
        init_std=0.0,
    ),
    # The second stage, 0.16 at batch size 1024: 60 epochs with 1 % of the labels, 30 with more.
    # The logits start at zero.
    "finetune": Use(
        "sgd",
        source="arXiv:2006.10029, released code",
        lr=0.005,
        lr_rule="sqrt",
        lars=True,
        epochs=30,
        few_epochs=60,
        batch_size=1024,
        init_std=0.0,
    ),
}
# SimCLR's, with three layers in the head and the larger weight decay.
SMALL = {
    "source": "google-research/simclr 383d414, README: CIFAR-10 command",
    "backbone": Use("resnet18", stem="3x3", zero_init_last=True),
    "views": {"jitter": (0.4, 0.4, 0.4, 0.1), "blur_p": 0.0},
    "loss": {"temperature": 0.5},
    "optimizer": {"lr": 1.0, "lr_rule": "linear"},
    "schedule": {"warmup_epochs": 10},
    "epochs": 1000,
    "batch_size": 512,
}
TINY = {
    "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
    "backbone": Use("resnet10-quarter", stem="7x7"),
    "views": {
        "crop_scale": (0.5, 1.0),
        "jitter": (0.4, 0.4, 0.4, 0.1),
        "blur_p": 0.5,
        "blur_sigma": (0.1, 1.0),
    },
    "encoder": {"hidden": 512},
    "optimizer": Use("adamw", lr=0.01),
    "schedule": Use("cosine", warmup_epochs=1, per="step"),
    "epochs": 60,
    "batch_size": 128,
}

recipe = Recipe(
    summary="SimCLR with deeper, wider networks with selective kernels and a three-layer head",
    negatives=Use("in-batch"),
    presets={"small": SMALL, "tiny": TINY},
    **PARTS,
)

# The paper's memory (about one point better): keys of a slowly moving copy of the network, as
# in MoCo. Here positives and in-batch negatives are that copy's keys too; the paper does not say
# whether they are, and the released code has no memory.
recipe_with_memory = Recipe(
    summary="SimCLR v2 with a memory of past keys beside the negatives of the batch",
    target=Use("momentum", decay=0.999),
    negatives=(Use("in-batch"), Use("queue", size=65536)),
    presets={"small": SMALL, "tiny": TINY},
    **PARTS,
)
