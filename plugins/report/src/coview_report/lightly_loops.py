"""lightly's heads, losses and transforms, put together as the examples of its documentation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from lightly import loss as losses
from lightly import transforms
from lightly.models import modules
from lightly.models.utils import update_momentum
from torch import Tensor
from torch.nn import functional as F

from coview.records import Step
from coview.studies.peers import Loop, Momentum, Views

Decay = Callable[[Step], float]


class Following(Momentum):
    """A loop whose second network moves before each step, by ``own.decay`` of the step."""

    def __init__(self, trunk: Any, head: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk, head)
        self.decay: Decay = own.decay

    def begin(self, at: Step) -> None:
        """Move the second network."""
        share = self.decay(at)
        for online, target in zip((self.trunk, self.head), self.target, strict=True):
            update_momentum(online, target, share)


class SimCLR(Loop):
    """SimCLR: NTXentLoss of both views."""

    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk)
        self.head = modules.SimCLRProjectionHead(trunk.num_features, own.hidden, own.dim)
        self.criterion = losses.NTXentLoss(own.temperature)

    def loss(self, *views: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return self.criterion(*(self.head(self.trunk(view)) for view in views))


class MoCo(Following):
    """MoCo: NTXentLoss with a memory bank for each side."""

    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        widths = trunk.num_features, own.hidden, own.dim
        super().__init__(trunk, partial(modules.MoCoProjectionHead, *widths), own)
        size = (own.queue, own.dim)
        self.first = losses.NTXentLoss(own.temperature, memory_bank_size=size)
        self.second = losses.NTXentLoss(own.temperature, memory_bank_size=size)

    def loss(self, *views: Tensor) -> Tensor:
        """Return the loss of a batch."""
        keys, queries = self.keys(*views), [self.online(view) for view in views]
        return 0.5 * (self.first(queries[0], keys[1]) + self.second(queries[1], keys[0]))


class BYOL(Following):
    """BYOL: NegativeCosineSimilarity of both directions."""

    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        widths = trunk.num_features, own.hidden, own.dim
        super().__init__(trunk, partial(modules.BYOLProjectionHead, *widths), own)
        self.predictor = modules.BYOLPredictionHead(own.dim, own.predictor_hidden, own.dim)
        self.criterion = losses.NegativeCosineSimilarity()

    def loss(self, *views: Tensor) -> Tensor:
        """Return the loss of a batch."""
        first, second = (self.predictor(self.online(view)) for view in views)
        keys = self.keys(*views)
        return 0.5 * (self.criterion(first, keys[1]) + self.criterion(second, keys[0]))


class SimSiam(Loop):
    """SimSiam: NegativeCosineSimilarity of both directions, with a stopped gradient."""

    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk)
        self.head = modules.SimSiamProjectionHead(trunk.num_features, own.hidden, own.dim)
        self.predictor = modules.SimSiamPredictionHead(own.dim, own.predictor_hidden, own.dim)
        self.criterion = losses.NegativeCosineSimilarity()

    def loss(self, *views: Tensor) -> Tensor:
        """Return the loss of a batch."""
        first, second = (self.head(self.trunk(view)) for view in views)
        one = self.criterion(self.predictor(first), second.detach())
        return 0.5 * (one + self.criterion(self.predictor(second), first.detach()))


class SwAV(Loop):
    """SwAV: SwaVLoss of prototypes that are normalised before each step."""

    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk)
        self.head = modules.SwaVProjectionHead(trunk.num_features, own.hidden, own.dim)
        self.prototypes = modules.SwaVPrototypes(own.dim, own.prototypes, 1)
        self.criterion = losses.SwaVLoss(own.temperature, sinkhorn_epsilon=own.epsilon)
        self.frozen, self.at = own.freeze_epochs, Step()

    def begin(self, at: Step) -> None:
        """Normalise the prototypes."""
        self.prototypes.normalize()
        self.prototypes.n_steps_frozen_prototypes = int(self.frozen * at.steps_per_epoch)
        self.at = at

    def loss(self, *views: Tensor) -> Tensor:
        """Return the loss of a batch."""
        rows = [F.normalize(self.head(self.trunk(view)), dim=1) for view in views]
        return self.criterion([self.prototypes(one, self.at.number) for one in rows], [])


class DINO(Following):
    """DINO: DINOLoss of teacher and student."""

    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        widths = trunk.num_features, own.hidden, own.bottleneck, own.prototypes
        more = {"batch_norm": own.batch_norm, "freeze_last_layer": own.freeze_epochs}
        super().__init__(trunk, partial(modules.DINOProjectionHead, *widths, **more), own)
        self.criterion = losses.DINOLoss(
            own.prototypes,
            teacher_temp=own.teacher_temperature,
            student_temp=own.temperature,
            center_momentum=own.centre_momentum,
        )

    def loss(self, *views: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return self.criterion(self.keys(*views), [self.online(view) for view in views])

    def gradients_ready(self, at: Step) -> None:
        """Let the last layer rest while it is frozen."""
        self.head.cancel_last_layer_gradients(current_epoch=at.epoch)


LOOPS: dict[str, Callable[[Any, SimpleNamespace], Loop]] = {
    "simclr": SimCLR,
    "moco-v2": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "swav": SwAV,
    "dino": DINO,
}


def views(method: str, size: int, asked: SimpleNamespace) -> Views:
    """Return the method's own transform.

    Args:
        method: its name.
        size: pixels per side of both views.
        asked: how strong it is: ``crop_scale``, ``flip_p``, ``jitter``, ``jitter_p`` and
            ``grey_p``, of each view ``blur_p`` and ``solarize_p``, and ``blur_sigma``;
            ``normalize``: mean and standard deviation.
    """
    least, most = asked.crop_scale
    if most != 1:
        raise ValueError("lightly's crops are of up to the whole image")
    strengths = zip(("cj_bright", "cj_contrast", "cj_sat", "cj_hue"), asked.jitter, strict=True)
    # DINO's second view takes no overall strength, so that its default must stand: a half.
    overall = 0.5 if method == "dino" else 1.0
    common: Any = {name: value / overall for name, value in strengths}
    common |= {"cj_prob": asked.jitter_p, "cj_strength": overall, "hf_prob": asked.flip_p}
    common |= {"random_gray_scale": asked.grey_p, "normalize": asked.normalize}
    common |= {"sigmas": asked.blur_sigma}
    (blur, second_blur), (solarize, second_solarize) = asked.blur_p, asked.solarize_p
    if method == "swav":
        scales: Any = {"crop_min_scales": (least,), "crop_max_scales": (most,)}
        crops: Any = {"crop_sizes": (size,), "crop_counts": (2,), **scales}
        return transforms.SwaVTransform(gaussian_blur=blur, **crops, **common)
    if method == "dino":
        crops = {"global_crop_size": size, "global_crop_scale": (least, most), "n_local_views": 0}
        late: Any = {"gaussian_blur": (blur, second_blur, 0.0)}
        return transforms.DINOTransform(
            solarization_prob=second_solarize, **late, **crops, **common
        )
    common |= {"input_size": size, "min_scale": least}
    if method == "byol":
        first = {"gaussian_blur": blur, "solarization_prob": solarize}
        second = {"gaussian_blur": second_blur, "solarization_prob": second_solarize}
        return transforms.BYOLTransform(
            transforms.BYOLView1Transform(**first, **common),
            transforms.BYOLView2Transform(**second, **common),
        )
    kinds = {"moco-v2": transforms.MoCoV2Transform, "simsiam": transforms.SimSiamTransform}
    return kinds.get(method, transforms.SimCLRTransform)(gaussian_blur=blur, **common)
