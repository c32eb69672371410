"""DenseCL (Wang et al. 2021, arXiv:2011.09157).

The defaults are the released code's 200 epochs of ImageNet: MoCo v2's recipe with a
second projection head, for places, and a queue of its own for it.
"""

from coview import Recipe, Use, cosine

__all__ = ["recipe"]

recipe = Recipe(
    summary="MoCo v2 that also finds each place of an image again in another view of it",
    paper="arXiv:2011.09157",
    views=Use(
        "simclr",
        symmetric=False,
        crop_scale=(0.2, 1.0),
        interpolation="bilinear",
        jitter=(0.4, 0.4, 0.4, 0.1),
        blur_kind="pillow",
        normalize=True,
        order=("crop", "jitter", "grey", "blur", "flip"),
    ),
    # Each of eight devices normalises the backbone's activations separately.
    encoder=Use("dense", dim=128, hidden=2048, norm_groups=8),
    target=Use("momentum", decay=0.999, shuffle=True),
    negatives=Use("queue", size=65536),
    loss=Use("dense-info-nce", temperature=0.2, dense_weight=0.5),
    backbone=Use("resnet50"),
    optimizer=Use("sgd", lr=0.03, momentum=0.9, weight_decay=1e-4),
    schedule=Use("cosine", per="epoch"),
    epochs=200,
    batch_size=256,
    probe=Use("sgd", source="arXiv:2003.04297, as MoCo v2", lr=30.0, epochs=100, drops=(0.6, 0.8)),
    presets={
        "small": {
            "source": "ours: the paper has no small images; settings of solo-learn's MoCo v2+ "
            "without blur, on a map of 4 x 4 places",
            "backbone": Use("resnet18", stem="3x3"),
            "views": {"symmetric": True, "blur_p": 0.0, "blur_kind": "gaussian"},
            "encoder": {"dim": 256, "norm_groups": 1},
            "target": {"decay": cosine(0.99, 0.999), "shuffle": False},
            "negatives": {"size": 32768},
            "optimizer": {"lr": 0.3},
            "schedule": Use("cosine", warmup_epochs=10, warmup_start=3e-5, per="step"),
            "epochs": 1000,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="3x3"),
            "views": {
                "crop_scale": (0.6, 1.0),
                "blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
                "blur_kind": "gaussian",
            },
            "encoder": {"hidden": 512, "norm_groups": 1},
            "target": {"decay": 0.99, "shuffle": False},
            "negatives": {"size": 1024},
            "loss": {"temperature": 0.1},
            "optimizer": Use("adamw", lr=0.01),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 60,
            "batch_size": 128,
        },
    },
)
