"""Claims about DINO as studies: `coview study run dino/centering-sharpening`."""

from coview.studies import KNN, UNTRAINED, Above, Quantity, Study, Variant

__all__ = ["centering_sharpening", "multi_crop"]

BASE = Variant(method="dino", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0})
COMMON = Variant(epochs=60).over(BASE)
# The student's own, at which the teacher's softmax is no sharper.
FLAT = 0.1

centering_sharpening = Study(
    claim=(
        "Without sharpening DINO collapses to even outputs, without centring to a single one, and "
        "with both it does not collapse"
    ),
    source="arXiv:2104.14294, section 5.3, figure 7",
    common=COMMON,
    variants={
        "both": Variant(),
        "centring alone": Variant(set={"loss.teacher_temperature": FLAT}),
        "sharpening alone": Variant(set={"loss.centring": False}),
    },
    measure={
        "knn": KNN,
        "untrained": UNTRAINED,
        "entropy": Quantity("assignment_entropy", "entropy / ln K", percent=False),
        "divergence": Quantity("assignment_divergence", "KL, nats", percent=False),
    },
    expect=(
        Above("both", "centring alone"),
        Above("both", "sharpening alone"),
        Above("centring alone:entropy", 0.9),
        Above(0.1, "sharpening alone:entropy"),
        Above("both:divergence", "centring alone:divergence"),
        Above("both:divergence", "sharpening alone:divergence"),
    ),
    notes=(
        "The paper's figure shows the teacher's entropy, which goes to ln K with centring alone "
        "and to 0 with sharpening alone, and the divergence of student and teacher, which goes "
        "to 0 in both cases, in 100 epochs of a ViT on ImageNet. Here a ResNet-10 trains for "
        "2,000 steps with a batch norm in the head, which by itself makes collapse less likely. "
        "Entropy is divided by ln K, and both are averages of the last epoch; above 0.9 counts "
        "as even, and below 0.1 as one output. Without sharpening, the teacher has the student's "
        f"temperature of {FLAT}, as in the paper."
    ),
)

multi_crop = Study(
    claim="At equal compute, a few small crops more are better than longer training with two large",
    source="arXiv:2104.14294, section 5.4, table 8",
    common=BASE,
    variants={
        "2 crops": Variant(epochs=45, set={"views.crop_scale": (0.3, 1.0)}),
        "2 crops + 4 small": Variant(
            epochs=30,
            set={
                "views.size": ("none", "none", 16),
                "views.count": (1, 1, 4),
                "views.crop_scale": ((0.3, 1.0), (0.3, 1.0), (0.1, 0.3)),
            },
        ),
    },
    expect=(Above("2 crops + 4 small", "2 crops"),),
    measure={"knn": KNN, "untrained": UNTRAINED},
    notes=(
        "In the paper a ViT-S/16 reaches 72.5 % with 2 crops of 224 pixels in 300 epochs (45.9 "
        "hours), and 74.6 % with 10 crops of 96 more in 100 epochs (24.2 hours). Here crops have "
        "32 and 16 pixels: four small ones have half as many pixels as the two large together, so "
        "the run without them gets half as many epochs more. A small crop shows 0.1 to 0.3 of an "
        "image instead of 0.05 to 0.4: these images have a digit of 14 to 26 pixels on an empty "
        "ground, and less of them often shows nothing at all."
    ),
)
