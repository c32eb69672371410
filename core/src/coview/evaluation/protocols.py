"""Published ways to train a classifier on a network: frozen (a probe) or fine-tuned."""

from __future__ import annotations

import math
from typing import Any

import attrs

from coview.errors import RequestError, unknown


@attrs.frozen
class Protocol:
    """How a classifier is trained on augmented images (crop and flip).

    Attributes:
        source: where the values are from.
        lr: of the whole network at a batch of 256; the rule is linear.
        head_lr: of the classifier, if another.
        weight_decay: of every parameter.
        epochs: passes over the images.
        batch_size: the published one; smaller sets are one batch.
        nesterov: Nesterov's momentum; the momentum is 0.9 everywhere.
        drops: shares of the training after which the rate falls by ``factor``;
            none: a cosine.
        factor: see above.
        init_std: deviation of the classifier's first weights; its bias starts at 0.
        lars: layer-wise adaptation of the rate (LARS, eta 0.001), weights only.
        sqrt_rule: ``lr`` is multiplied with the root of the batch instead.
        warmup: share of the training in which the rate rises, before a cosine.
    """

    source: str
    lr: float
    epochs: int
    batch_size: int = 256
    weight_decay: float = 0.0
    head_lr: float | None = None
    nesterov: bool = False
    drops: tuple[float, ...] = ()
    factor: float = 0.1
    init_std: float = 0.01
    lars: bool = False
    sqrt_rule: bool = False
    warmup: float = 0.0

    def scale(self, batch_size: int) -> float:
        """Return what the learning rate is multiplied with at a batch size."""
        return math.sqrt(batch_size) if self.sqrt_rule else batch_size / 256

    @property
    def schedule(self) -> str:
        """The schedule in words."""
        if not self.drops:
            return f"warm-up {100 * self.warmup:.4g} %, cosine" if self.warmup else "cosine"
        return f"x {self.factor} after {', '.join(f'{100 * d:.4g} %' for d in self.drops)}"


MOCO = Protocol("arXiv:1911.05722, section 4.1", 30.0, 100, drops=(0.6, 0.8))
SIMCLR = Protocol(
    "arXiv:2002.05709, appendix B.6", 0.1, 90, batch_size=4096, nesterov=True, init_std=0.0
)
PROBES = {
    "moco": MOCO,
    "moco-v2": attrs.evolve(MOCO, source="arXiv:2003.04297, as MoCo"),
    "moco-v3": Protocol("arXiv:2104.02057, released code (ResNet)", 0.1, 90, batch_size=1024),
    "simclr": SIMCLR,
    "simclr-v2": attrs.evolve(SIMCLR, source="arXiv:2006.10029, as SimCLR"),
    "byol": Protocol(
        "arXiv:2006.07733, appendix C.1 and released code", 0.2, 80, batch_size=1024, nesterov=True
    ),
    "swav": Protocol("arXiv:2006.09882, released code", 0.3, 100, weight_decay=1e-6),
    "simsiam": Protocol("arXiv:2011.10566, released code", 0.1, 90, batch_size=4096, lars=True),
    "dino": Protocol("arXiv:2104.14294, released code", 0.001, 100, batch_size=1024),
    "cmc": Protocol(
        "arXiv:1906.05849, released code", 30.0, 60, drops=(0.5, 2 / 3, 5 / 6), factor=0.2
    ),
}
"""Linear probes by the method that published them."""

SWAV = Protocol(
    "arXiv:2006.09882, released code", 0.01, 20, head_lr=0.2, drops=(0.6, 0.8), factor=0.2
)
FINETUNES = {
    "simclr": Protocol(
        "arXiv:2002.05709, appendix B.5", 0.05, 30, batch_size=4096, nesterov=True, init_std=0.0
    ),
    "simclr-1%": Protocol(
        "arXiv:2002.05709, appendix B.5", 0.05, 60, batch_size=4096, nesterov=True, init_std=0.0
    ),
    "swav": SWAV,
    "swav-1%": attrs.evolve(SWAV, lr=0.02, head_lr=5.0),
}
"""Fine-tuning by who published it; ``-1%``: with one image label in a hundred."""


def changed(protocol: Protocol, **values: Any) -> Protocol:
    """Return a protocol with the values that are not None, its source saying so."""
    given = {key: value for key, value in values.items() if value is not None}
    if not given:
        return protocol
    listed = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in given.items())
    return attrs.evolve(protocol, source=f"{protocol.source}, but {listed}", **given)


def find_probe(name: str, method: str) -> Protocol:
    """Return a probe by name; ``paper`` is that of the method the weights came from.

    Raises:
        RequestError: there is none by that name, or for that method.
    """
    wanted = method if name == "paper" else name
    if wanted in PROBES:
        return PROBES[wanted]
    if name == "paper":
        raise RequestError(
            f"No published linear probe is known for {method!r}. Name one: --protocol "
            f"{', '.join(PROBES)}."
        )
    raise RequestError(unknown("protocol", name, ("grid", "paper", *PROBES)))
