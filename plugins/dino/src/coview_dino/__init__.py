"""DINO (Caron et al. 2021, arXiv:2104.14294).

The defaults are the paper's ViT-S/16 recipe at batch size 1024 with ten local
crops, 300 epochs; the released code's own defaults differ (8 local crops, batch
512, teacher temperature 0.04 throughout, last layer's lengths fixed).
"""

from coview import Recipe, Use, cosine, linear

__all__ = ["recipe"]

recipe = Recipe(
    summary="match the centred, sharpened output of a moving average of the network across crops",
    paper="arXiv:2104.14294",
    # Two large crops with a group each, since BYOL's two transforms differ.
    views=Use(
        "multi-crop",
        size=("none", "none", 96),
        count=(1, 1, 10),
        crop_scale=((0.4, 1.0), (0.4, 1.0), (0.05, 0.4)),
        interpolation="bicubic",
        jitter=(0.4, 0.4, 0.2, 0.1),
        blur_p=(1.0, 0.1, 0.5),
        blur_kind="pillow",
        solarize_p=(0.0, 0.2, 0.0),
    ),
    encoder=Use("dino", dim=65536, norm_last_layer=False),
    target=Use("momentum", decay=cosine(0.996, 1.0)),
    loss=Use(
        "self-distillation",
        student_temperature=0.1,
        teacher_temperature=linear(0.04, 0.07, epochs=30, per="epoch", endpoint=True),
        centre_momentum=0.9,
    ),
    backbone=Use("vit_small_patch16_224", drop_path=0.1),
    optimizer=Use(
        "adamw",
        lr=0.0005,
        lr_rule="linear",
        weight_decay=cosine(0.04, 0.4),
        exclude_norm_and_bias=True,
    ),
    schedule=Use("cosine", warmup_epochs=10, warmup_count="steps", warmup_closed=True, final=1e-6),
    epochs=300,
    batch_size=1024,
    evaluates="target",
    probe=Use(
        "sgd",
        source="arXiv:2104.14294, released code",
        lr=0.001,
        epochs=100,
        batch_size=1024,
        per="epoch",
        tokens="joined",
    ),
    knn=Use("knn", source="facebookresearch/dino, eval_knn.py", k=20, temperature=0.07),
    presets={
        "resnet": {
            "source": "facebookresearch/dino, README: ResNet-50, 100 epochs",
            "backbone": Use("resnet50"),
            "views": {
                "count": (1, 1, 8),
                "crop_scale": ((0.14, 1.0), (0.14, 1.0), (0.05, 0.14)),
            },
            "encoder": {"norm_last_layer": True},
            "loss": {"teacher_temperature": 0.04},
            "optimizer": Use(
                "sgd",
                lr=0.03,
                lr_rule="linear",
                momentum=0.9,
                weight_decay=1e-4,
                exclude_norm_and_bias=True,
            ),
            "epochs": 100,
            "batch_size": 512,
        },
        # Two crops without blur, no clipping, and the student is evaluated.
        "small": {
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/dino.yaml: CIFAR-10 89.52 "
            "by its online probe",
            "backbone": Use("resnet18", stem="3x3", stem_padding=2),
            "views": {
                "size": "none",
                "count": (1, 1),
                "crop_scale": (0.08, 1.0),
                "blur_p": 0.0,
                "solarize_p": (0.0, 0.2),
                "order": ("crop", "jitter", "grey", "blur", "solarize", "flip"),
            },
            "encoder": {"dim": 4096, "norm_last_layer": True, "clip": 0.0},
            "target": {"decay": cosine(0.9995, 1.0)},
            "loss": {"teacher_temperature": 0.07},
            "optimizer": Use(
                "larc",
                lr=0.3,
                lr_rule="linear",
                momentum=0.9,
                weight_decay=1e-6,
                eta=0.02,
                clip=True,
                exclude_norm_and_bias=True,
            ),
            "schedule": {"warmup_start": 3e-5, "final": 0.0},
            "evaluates": "online",
            "epochs": 1000,
            "batch_size": 256,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "size": "none",
                "count": (1, 1),
                "crop_scale": (0.6, 1.0),
                "blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
                "blur_kind": "gaussian",
                "solarize_p": 0.0,
            },
            "encoder": {
                "hidden": 512,
                "dim": 256,
                "layers": 2,
                "norm": "batch",
                "norm_last_layer": True,
            },
            "target": {"decay": 0.97},
            "loss": {"teacher_temperature": 0.04},
            "optimizer": Use("adamw", lr=0.003),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
