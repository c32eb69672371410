"""iBOT (Zhou et al. 2022, arXiv:2111.07832).

The defaults are the released command for ViT-S/16 with ten local crops, 800 epochs at batch
size 1024.
"""

from coview import Recipe, Use, cosine, linear

__all__ = ["recipe"]

TEACHER = linear(0.04, 0.07, epochs=30, per="epoch", endpoint=True)

recipe = Recipe(
    summary="DINO, and the same for patches that are hidden from the student",
    paper="arXiv:2111.07832",
    # DINO's views with other scales: two large crops with a group each, and ten small ones.
    views=Use(
        "multi-crop",
        size=("none", "none", 96),
        count=(1, 1, 10),
        crop_scale=((0.25, 1.0), (0.25, 1.0), (0.05, 0.25)),
        interpolation="bicubic",
        jitter=(0.4, 0.4, 0.2, 0.1),
        blur_p=(1.0, 0.1, 0.5),
        blur_kind="pillow",
        solarize_p=(0.0, 0.2, 0.0),
    ),
    wrap=(Use("block-mask", ratio=(0.0, 0.3), spread=(0.0, 0.2)),),
    encoder=Use("masked-tokens", dim=8192, norm_last_layer=False),
    target=Use("momentum", decay=cosine(0.996, 1.0)),
    loss=(
        Use(
            "self-distillation",
            student_temperature=0.1,
            teacher_temperature=TEACHER,
            centre_momentum=0.9,
        ),
        Use(
            "token-distillation",
            student_temperature=0.1,
            teacher_temperature=TEACHER,
            centre_momentum=0.9,
        ),
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
    epochs=800,
    batch_size=1024,
    evaluates="target",
    presets={
        "small": {
            "source": "ours: the paper has no small images; two crops of 32 pixels in patches of 4",
            "backbone": Use("mae-vit-small", patch=4, drop_path=0.1),
            "views": {
                "size": "none",
                "count": (1, 1),
                "crop_scale": (0.14, 1.0),
                "blur_p": 0.0,
                "solarize_p": (0.0, 0.2),
            },
            "encoder": {"dim": 4096, "norm_last_layer": True},
            "batch_size": 256,
        },
        "tiny": {
            "source": "ours: 1.8 million parameters, hours on a processor; no run to its end is "
            "recorded",
            "backbone": Use("mae-vit-tiny", patch=4),
            "views": {
                "size": "none",
                "count": (1, 1),
                "crop_scale": (0.4, 1.0),
                "blur_p": 0.0,
                "solarize_p": 0.0,
            },
            "encoder": {
                "hidden": 256,
                "bottleneck": 64,
                "dim": 256,
                "layers": 2,
                "norm_last_layer": True,
            },
            "target": {"decay": 0.97},
            "optimizer": Use("adamw", lr=0.001),
            "schedule": Use("cosine", warmup_epochs=2, per="step"),
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
