"""NNCLR (Dwibedi et al. 2021, arXiv:2104.14548).

The defaults are the paper's ImageNet recipe without multi-crop: 1000 epochs at batch size
4096. We know of no code of the authors; what the paper leaves open (the constants of LARS)
is SimCLR's.
"""

from coview import Recipe, Use

__all__ = ["recipe"]

recipe = Recipe(
    summary="predict the nearest neighbour of another view, among the images seen lately",
    paper="arXiv:2104.14548",
    views=Use("byol"),
    # Batch norm after every layer of the projector; it makes their biases void.
    encoder=Use(
        "predictor",
        dim=256,
        hidden=2048,
        layers=3,
        hidden_bias=False,
        output_norm="batch",
        predictor_hidden=4096,
        predictor_output_bias=True,
    ),
    loss=Use("nnclr", temperature=0.1),
    wrap=Use("nearest-neighbours", size=98304),
    backbone=Use("resnet50"),
    optimizer=Use("lars", lr=0.3, lr_rule="linear", momentum=0.9, weight_decay=1e-6, eta=1e-3),
    schedule=Use("cosine", warmup_epochs=10),
    epochs=1000,
    batch_size=4096,
    presets={
        "small": {
            "source": "solo-learn 9187ea3, scripts/pretrain/cifar/nnclr.yaml: CIFAR-10 91.88 "
            "by its online probe",
            "backbone": Use("resnet18", stem="3x3", stem_padding=2),
            "views": {
                "blur_p": 0.0,
                "second_blur_p": 0.0,
                "order": ("crop", "jitter", "grey", "blur", "solarize", "flip"),
            },
            "loss": {"temperature": 0.2},
            "wrap": {"size": 65536},
            "optimizer": Use(
                "larc",
                lr=0.4,
                lr_rule="linear",
                momentum=0.9,
                weight_decay=1e-5,
                eta=0.02,
                clip=True,
                exclude_norm_and_bias=True,
            ),
            "schedule": {"warmup_start": 3e-5, "warmup_count": "steps", "warmup_closed": True},
            "batch_size": 256,
        },
        "tiny": {
            "source": "ours: for a network of 0.3 million parameters and minutes on a processor",
            "backbone": Use("resnet10-quarter", stem="7x7"),
            "views": {
                "crop_scale": (0.6, 1.0),
                "blur_p": 0.5,
                "second_blur_p": 0.5,
                "blur_sigma": (0.1, 1.0),
                "second_solarize_p": 0.0,
            },
            "encoder": {"dim": 128, "hidden": 512, "layers": 2, "predictor_hidden": 512},
            "loss": {"temperature": 0.2},
            "wrap": {"size": 512},
            "optimizer": Use("adamw", lr=0.005),
            "schedule": Use("cosine", warmup_epochs=1, per="step"),
            "epochs": 60,
            "batch_size": 128,
        },
    },
)
