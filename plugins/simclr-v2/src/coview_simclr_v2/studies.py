"""Claims about SimCLR v2 as studies: `coview study run simclr-v2/head-depth`."""

from coview.studies import KNN, Above, Quantity, Study, Variant

__all__ = ["distillation", "head_depth", "memory"]

BASE = Variant(
    method="simclr-v2", preset="tiny", data="moved-digits", epochs=30, set={"views.flip_p": 0.0}
)
FEW = Quantity("coview_simclr_v2.measures:few", "1 % of labels, %")
SCALE = (
    "The paper trains ResNets of 50 to 152 layers on ImageNet for 800 epochs. Here a ResNet-10 "
    "trains for 30 epochs of AdamW. 1 % of the labels are 4 images of a class. Every fine-tuning "
    "is 200 steps of SGD with crops of 30 to 100 % of an image and no flips; the paper's settings "
    "are for thousands of labelled images."
)

head_depth = Study(
    claim=(
        "A head of three layers instead of two, and fine-tuning from its first layer, help, and "
        "help most with 1 % of the labels"
    ),
    source="arXiv:2006.10029, section 3.3, figure 5",
    common=BASE,
    variants={
        "2 layers": Variant(set={"encoder.layers": 2}),
        "3 layers": Variant(set={"encoder.layers": 3}),
    },
    measure={
        "few": FEW,
        "below": Quantity("coview_simclr_v2.measures:few_below", "1 %, from below the head, %"),
        "more": Quantity("coview_simclr_v2.measures:more", "10 % of labels, %"),
        "inside_few": Quantity("coview_simclr_v2.measures:inside_few", "gain inside, 1 %"),
        "inside_more": Quantity("coview_simclr_v2.measures:inside_more", "gain inside, 10 %"),
        "few_over_more": Quantity("coview_simclr_v2.measures:few_over_more", "1 % less 10 %, %"),
    },
    expect=(
        Above("3 layers", "2 layers"),
        Above("3 layers", "3 layers:below"),
        Above("3 layers:few_over_more", "2 layers:few_over_more"),
        Above("3 layers:inside_few", "3 layers:inside_more"),
    ),
    notes=(
        f"{SCALE} Columns without a note start from the head's first layer, the paper's best for "
        "three layers. The last column is no accuracy: the difference of two variants in it is how "
        "much more the third layer gains with 1 % of the labels than with 10 %."
    ),
)

memory = Study(
    claim="A memory of past keys, as in MoCo, helps a little",
    source="arXiv:2006.10029, section 2",
    common=BASE,
    variants={
        "without": Variant(),
        "with a memory": Variant(
            method="simclr-v2-memory",
            set={"target.decay": 0.99, "negatives.queue.size": 1024},
        ),
    },
    measure={"knn": KNN, "few": FEW},
    expect=(
        Above("with a memory", "without"),
        Above("with a memory:few", "without:few"),
    ),
    notes=(
        f"{SCALE} The paper reports about 1 point, for a linear classifier and with 1 % of the "
        "labels; here kNN takes the linear classifier's place. Its memory of 64,000 keys from an "
        "average with decay 0.999 was meant for batches of 4096 and 250,000 steps: here it is "
        "1,024 keys and 0.99. With the memory, positives too are keys of the average, without "
        "gradient; the paper does not say whether its are, and its code has no memory."
    ),
)

distillation = Study(
    claim="Distilling the fine-tuned network on unlabelled images helps where labels are few",
    source="arXiv:2006.10029, section 3.4, table 2",
    common=BASE,
    variants={"simclr-v2": Variant()},
    measure={
        "distilled": Quantity("coview_simclr_v2.measures:distilled", "student, all images, %"),
        "teacher": FEW,
        "labelled": Quantity(
            "coview_simclr_v2.measures:distilled_labelled", "student, labelled images, %"
        ),
    },
    expect=(
        Above("simclr-v2:distilled", "simclr-v2:teacher"),
        Above("simclr-v2:distilled", "simclr-v2:labelled"),
    ),
    notes=(
        f"{SCALE} Teacher and student have the same backbone; the student begins with random "
        "weights and has the paper's temperature for this case, 0.1. It sees every training "
        "image without its label, for 30 epochs, as in pre-training; the other student sees the "
        "images with labels, from teacher and label in equal parts, as the paper's table has it. "
        "Its table teaches a ResNet-50 by a larger network: 12.3 % from the labels alone, 23.6 % "
        "on labelled images, 68.9 % on all."
    ),
)
