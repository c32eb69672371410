"""A study of one's own: `coview study run docs/example_study.py:longer`."""

from coview.studies import KNN, UNTRAINED, Above, Study, Variant

longer = Study(
    claim="Training twice as long is better",
    source="everyone",
    common=Variant(method="simclr", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0}),
    variants={"10 epochs": Variant(epochs=10), "20 epochs": Variant(epochs=20)},
    measure={"knn": KNN, "untrained": UNTRAINED},
    expect=(
        Above("20 epochs", "10 epochs"),
        Above("20 epochs", "20 epochs:untrained", by=0.2),
    ),
)
