"""MoCo v2 (Chen et al. 2020, arXiv:2003.04297): only a recipe."""

from coview import Recipe, Use, cosine

__all__ = ["recipe"]

recipe = Recipe(
    summary="MoCo with SimCLR's projection head, blur and cosine schedule",
    paper="arXiv:2003.04297",
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
    # Two layers with biases and without batch normalisation; each of eight devices
    # normalises the backbone's activations separately.
    encoder=Use(
        "projection",
        dim=128,
        norm="none",
        output_norm="none",
        bias=True,
        init_std=None,
        norm_views="each",
        norm_groups=8,
    ),
    target=Use("momentum", decay=0.999, shuffle=True),
    negatives=Use("queue", size=65536),
    loss=Use("info-nce", temperature=0.2),
    backbone=Use("resnet50"),
    optimizer=Use("sgd", lr=0.03, momentum=0.9, weight_decay=1e-4),
    schedule=Use("cosine", per="epoch"),
    epochs=200,
    batch_size=256,
    probe=Use("sgd", source="arXiv:2003.04297, as MoCo", lr=30.0, epochs=100, drops=(0.6, 0.8)),
    presets={
        # "MoCo v2+": both directions, summed, a queue for each, and a rising momentum.
        "small": {
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/mocov2plus.yaml: CIFAR-10 92.94 "
            "by its online probe",
            "backbone": Use("resnet18", stem="3x3", stem_padding=2),
            "views": {"symmetric": True, "crop_scale": (0.08, 1.0), "interpolation": "bicubic"},
            "encoder": {"hidden": 2048, "dim": 256, "norm_groups": 1},
            "target": {"decay": cosine(0.99, 0.999), "shuffle": False},
            "negatives": {"size": 32768, "per_view": True},
            "loss": {"reduction": "sum"},
            "optimizer": {"lr": 0.3},
            "schedule": Use(
                "cosine",
                warmup_epochs=10,
                warmup_start=3e-5,
                warmup_count="steps",
                warmup_closed=True,
                per="step",
            ),
            "epochs": 1000,
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
