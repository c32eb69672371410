"""SupCon, supervised contrastive learning (Khosla et al. 2020, arXiv:2004.11362).

The defaults are the first released code's ImageNet recipe of ResNet-50: 350 epochs at batch
size 6144, a linear head, and a loss times its temperature. That code normalises the features
before the head, which changes nothing where the head is linear and its output a unit vector.
Deviations: views are SimCLR's, with which the paper compares, where its best results are with
AutoAugment; and biases are not decayed.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="pull images of one class together and push the others away, by their labels",
    paper="arXiv:2004.11362",
    views=Use("simclr"),
    encoder=Use("projection", dim=128, layers=1, output_norm="none", bias=False, init_std=0.01),
    loss=Use("supcon", temperature=0.1, weight=0.1),
    backbone=Use("resnet50"),
    optimizer=Use("lars", lr=0.4, lr_rule="linear", momentum=0.9, weight_decay=1e-3, eta=1e-3),
    schedule=Use("cosine", warmup_epochs=12, warmup_count="steps"),
    epochs=350,
    batch_size=6144,
    presets={
        # That code's loss is times temperature / 0.07.
        "small": {
            "source": "ours: HobbitLong/SupContrast's CIFAR-10 command (96.0 linear), whose "
            "warm-up ends 0.03 % below the peak, on the cosine",
            "backbone": Use("resnet50", stem="3x3"),
            "views": {
                "crop_scale": (0.2, 1.0),
                "interpolation": "bilinear",
                "jitter": (0.4, 0.4, 0.4, 0.1),
                "blur_p": 0.0,
                "normalize": True,
            },
            "encoder": {"layers": 2, "norm": "none", "bias": True, "init_std": None},
            "loss": {"weight": 0.1 / 0.07},
            "optimizer": Use("sgd", lr=0.5, momentum=0.9, weight_decay=1e-4),
            "schedule": Use(
                "cosine",
                per="epoch",
                first_epoch=1,
                warmup_epochs=10,
                warmup_start=0.01,
                warmup_count="steps",
                final=0.0005,
            ),
            "epochs": 1000,
            "batch_size": 1024,
            "probe": Use(
                "sgd",
                source="arXiv:2004.11362, second released code",
                lr=2.5,
                epochs=100,
                batch_size=512,
                drops=(0.6, 0.75, 0.9),
                factor=0.2,
            ),
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "crop_scale": (0.6, 1.0),
                "jitter": (0.4, 0.4, 0.4, 0.1),
                "blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
            },
            "encoder": {"layers": 2, "norm": "batch", "init_std": None},
            "loss": {"weight": 1.0},
            "optimizer": Use("adamw", lr=0.005),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 30,
            "batch_size": 128,
        },
    },
)
