"""MoCo's claims as studies (He et al. 2020, arXiv:1911.05722)."""

from __future__ import annotations

from coview.studies import Above, Alike, Study, Variant

__all__ = ["momentum", "queue"]

DIGITS = Variant(
    method="moco", preset="tiny", data="moved-digits", set={"views.flip_p": 0.0}, epochs=30
)

HERE = (
    "A small ResNet and digits instead of ResNet-50 and ImageNet; AdamW instead of SGD; no flips, "
    "which turn digits into other signs; kNN accuracy instead of a linear classifier's."
)

momentum = Study(
    claim="Keys must come from a slowly moving encoder: a copy of the online network fails, and "
    "a momentum of 0.9 is worse than one near 1.",
    source="arXiv:1911.05722, section 4.1, the table on momentum",
    common=DIGITS,
    variants={
        str(decay): Variant(set={"target.decay": decay}) for decay in (0.0, 0.9, 0.99, 0.999)
    },
    expect=(Above("0.99", "0.0"), Above("0.99", "0.9")),
    notes=f"{HERE} In the paper 0.999 is the best, over a million steps. These runs are of a "
    "thousand, in which an encoder with 0.999 would hardly move, so the rule is about 0.99; 0.999 "
    "is there to see.",
)

queue = Study(
    claim="A longer queue of keys helps, up to a length from which on it changes little.",
    source="arXiv:1911.05722, section 4.1 and figure 3",
    common=DIGITS,
    variants={
        str(size): Variant(set={"negatives.size": size}) for size in (128, 256, 512, 1024, 4096)
    },
    expect=(Above("1024", "128"), Alike("4096", "1024", within=0.02)),
    notes=f"{HERE} Queues of 128 (a batch) to 4096 (all other images) stand for the paper's 256 "
    "to 65536, of 1.28 million images. The last one is shortened by a batch, so that it "
    "does not hold the query's own image.",
)
