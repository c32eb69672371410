"""SimCLR with a triplet loss (Schroff et al. 2015, arXiv:1503.03832)."""

from coview import Recipe, Use

recipe = Recipe(
    summary="SimCLR with a triplet loss: beat the hardest negative by a margin",
    paper="arXiv:1503.03832",
    views=Use("simclr"),
    encoder=Use("projection"),
    negatives=Use("in-batch"),
    loss=Use("triplet", margin=0.2),
    backbone=Use("resnet18", stem="3x3"),
    optimizer=Use("sgd", lr=0.03),
    schedule=Use("cosine", warmup_epochs=10),
)
