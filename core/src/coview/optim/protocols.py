"""How a classifier is trained on a network, frozen (a probe) or with it (fine-tuning).

Methods publish their own: a recipe's tables ``probe`` and ``finetune`` name a
protocol (group ``coview.protocols``) and give its settings, which for the core's own
are the classes here. Nothing here imports torch.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import attrs

from coview.schedules import half_cosine, rate_scale
from coview.settings import between, ge, gt, one_of, setting

SOURCE = "where these settings are published"


@attrs.frozen
class Protocol:
    """SGD on augmented images (crop and flip), with a momentum of 0.9."""

    source: str = setting("", SOURCE)
    lr: float = setting(0.1, "learning rate, see lr_rule", gt(0))
    epochs: int = setting(100, "passes over the images", ge(1))
    batch_size: int = setting(256, "images a step; smaller sets are one batch", ge(1))
    weight_decay: float = setting(0.0, "of every parameter", ge(0))
    nesterov: bool = setting(False, "Nesterov's momentum")
    drops: tuple[float, ...] = setting(
        (), "shares of the training after which the rate falls by factor; none: a cosine"
    )
    factor: float = setting(0.1, "what the rate is multiplied with at a drop", gt(0))
    init_std: float = setting(
        0.01, "deviation of the classifier's first weights; its bias starts at 0", ge(0)
    )
    lars: bool = setting(
        False,
        "layer-wise adaptation of the rate (eta 0.001), weights only; in fine-tuning not of the "
        "classifier, which is not decayed either",
    )
    larc: bool = setting(
        False, "layer-wise rates of weights and biases as apex's LARC without clipping has them"
    )
    lr_rule: str = setting(
        "linear",
        "linear: lr is for a batch of 256 and grows with it; sqrt: lr times the batch's root",
        one_of("linear", "sqrt"),
    )
    warmup: float = setting(
        0.0, "share of the training in which the rate rises, before a cosine", between(0, 1)
    )
    per: str = setting(
        "step", "update the cosine at every step or every epoch", one_of("step", "epoch")
    )
    tokens: str = setting(
        "output",
        "a vision transformer's features: output; or joined, as DINO's authors: the class tokens "
        "of the last four blocks (of up to 384 features), else of the last with its patches' mean",
        one_of("output", "joined"),
    )

    def scale(self, batch_size: int) -> float:
        """Return what the learning rate is multiplied with at a batch size."""
        return rate_scale(self.lr_rule, batch_size)

    def rate(self, done: float) -> float:
        """Return the share of the peak learning rate after a share of the training."""
        if self.drops:
            # Shares of whole epochs, met exactly: 60 of 100 must not miss 0.6 by rounding.
            return float(self.factor ** sum(done >= drop - 1e-9 for drop in self.drops))
        if self.per == "epoch":
            done = math.floor(done * self.epochs + 1e-9) / self.epochs
        if done < self.warmup:
            return done / self.warmup
        return half_cosine((done - self.warmup) / (1 - self.warmup))

    @property
    def schedule(self) -> str:
        """The schedule in words."""
        if not self.drops:
            cosine = "cosine by epochs" if self.per == "epoch" else "cosine"
            return f"warm-up {100 * self.warmup:.4g} %, {cosine}" if self.warmup else cosine
        return f"x {self.factor} after {', '.join(f'{100 * d:.4g} %' for d in self.drops)}"


@attrs.frozen
class FineTuning(Protocol):
    """The same for the whole network; with 1 % of the labels perhaps other rates."""

    head_lr: float | None = setting(None, "of the classifier; none: lr", gt(0))
    few_lr: float | None = setting(None, "lr with 1 % of the labels; none: the same", gt(0))
    few_head_lr: float | None = setting(None, "head_lr with 1 % of the labels", gt(0))
    few_epochs: int | None = setting(None, "epochs with 1 % of the labels", ge(1))

    def for_labels(self, labels: str) -> FineTuning:
        """Return the protocol for a share of the labels, as ``--labels`` has it."""
        if labels != "1%":
            return self
        few = ("lr", "head_lr", "epochs")
        others: dict[str, Any] = {name: getattr(self, f"few_{name}") for name in few}
        return attrs.evolve(self, **{k: v for k, v in others.items() if v is not None})


@attrs.frozen
class SupportVectors:
    """A linear support vector machine on features: squared hinge, a class against the rest."""

    source: str = setting("", SOURCE)
    cost: float = setting(1.0, "C: the weight of the errors' sum against |w|^2 / 2", gt(0))


@attrs.frozen
class Neighbours:
    """A weighted vote of the nearest training images by cosine."""

    source: str = setting("", SOURCE)
    k: int = setting(200, "neighbours that vote", ge(1))
    temperature: float = setting(0.07, "temperature of the vote", gt(0))
    features: str = setting(
        "backbone",
        "what is compared: the backbone's features, or the projection, as in training",
        one_of("backbone", "projection"),
    )


@attrs.frozen
class Unpublished:
    """The method published none."""


GENERIC = FineTuning("coview's own choice", 0.05, 30, nesterov=True, init_std=0.0, few_epochs=60)
"""Fine-tuning of weights whose method published none."""

AnyProtocol = TypeVar("AnyProtocol", bound=Protocol)


def changed(protocol: AnyProtocol, **values: Any) -> AnyProtocol:
    """Return a protocol with the values that are not None, its source saying so."""
    given = {key: value for key, value in values.items() if value is not None}
    if not given:
        return protocol
    listed = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in given.items())
    values = {**given, "source": f"{protocol.source}, but {listed}"}
    return attrs.evolve(protocol, **values)
