"""MAE (He et al. 2022, arXiv:2111.06377).

The defaults are ViT-L/16 for 800 epochs, with which the paper compares its choices
(section 4.1), and the pre-training settings of its appendix A.1 and released code.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="predict the pixels of the three quarters of an image's patches that are hidden",
    paper="arXiv:2111.06377",
    views=Use(
        "instdisc",
        count=1,
        crop_scale=(0.2, 1.0),
        interpolation="bicubic",
        order=("crop", "flip"),
    ),
    wrap=(Use("random-mask", ratio=0.75),),
    encoder=Use("masked-autoencoder", width=512, blocks=8, heads=16),
    target=Use("patch-pixels", normalise=True),
    loss=Use("squared-error", reduction="mean"),
    backbone=Use("mae-vit-large"),
    optimizer=Use(
        "adamw",
        lr=1.5e-4,
        lr_rule="linear",
        weight_decay=0.05,
        beta2=0.95,
        exclude_norm_and_bias=True,
    ),
    schedule=Use("cosine", warmup_epochs=40, warmup_count="steps"),
    epochs=800,
    batch_size=4096,
    # The paper's has a batch norm without weights before the classifier, which this one lacks.
    probe=Use(
        "sgd",
        source="arXiv:2111.06377, appendix A.1, table 10, without its batch norm",
        lr=0.1,
        epochs=90,
        batch_size=16384,
        lars=True,
        warmup=10 / 90,
    ),
    presets={
        # Patches of 4 pixels cut 32 x 32 into 64, of which 16 are visible; a decoder of a quarter
        # of the encoder's work.
        "small": {
            "source": "ours: the paper has no small images",
            "backbone": Use("mae-vit-small", patch=4),
            "encoder": {"width": 192, "blocks": 4, "heads": 4},
            "optimizer": {"lr": 3e-4},
            "schedule": {"warmup_epochs": 20},
            "epochs": 800,
            "batch_size": 1024,
        },
        "tiny": {
            "source": "ours: 1.8 million parameters, hours on a processor; no run to its end is "
            "recorded",
            "backbone": Use("mae-vit-tiny", patch=4),
            "views": {"crop_scale": (0.6, 1.0)},
            "encoder": {"width": 96, "blocks": 2, "heads": 4},
            "optimizer": {"lr": 1.5e-3},
            "schedule": {"warmup_epochs": 2},
            "epochs": 100,
            "batch_size": 128,
        },
    },
)
