"""lightly's heads, losses and transforms, put together as the examples of its documentation."""

from functools import partial
from types import SimpleNamespace
from typing import Any

from lightly import loss as losses
from lightly import transforms
from lightly.models import modules
from lightly.models.utils import update_momentum
from lightly.transforms.utils import IMAGENET_NORMALIZE
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rival.loop import At, Loop, Momentum, Views

MEAN, STD = IMAGENET_NORMALIZE["mean"], IMAGENET_NORMALIZE["std"]


class Following(Momentum):
    def __init__(self, trunk: Any, head: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk, head)
        self.decay = own.decay

    def begin(self, at: At) -> None:
        share = cosine_schedule(at.epoch, at.epochs, *self.decay)
        for online, target in zip((self.trunk, self.head), self.target, strict=True):
            update_momentum(online, target, share)


class SimCLR(Loop):
    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk)
        self.head = modules.SimCLRProjectionHead(trunk.num_features, own.hidden, own.dim)
        self.criterion = losses.NTXentLoss(own.temperature)

    def loss(self, *views: Tensor) -> Tensor:
        return self.criterion(*(self.head(self.trunk(view)) for view in views))


class MoCo(Following):
    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        widths = trunk.num_features, own.hidden, own.dim
        super().__init__(trunk, partial(modules.MoCoProjectionHead, *widths), own)
        size = (own.queue, own.dim)
        self.first = losses.NTXentLoss(own.temperature, memory_bank_size=size)
        self.second = losses.NTXentLoss(own.temperature, memory_bank_size=size)

    def loss(self, *views: Tensor) -> Tensor:
        keys, queries = self.keys(*views), [self.online(view) for view in views]
        return 0.5 * (self.first(queries[0], keys[1]) + self.second(queries[1], keys[0]))


class BYOL(Following):
    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        widths = trunk.num_features, own.hidden, own.dim
        super().__init__(trunk, partial(modules.BYOLProjectionHead, *widths), own)
        self.predictor = modules.BYOLPredictionHead(own.dim, own.predictor_hidden, own.dim)
        self.criterion = losses.NegativeCosineSimilarity()

    def loss(self, *views: Tensor) -> Tensor:
        first, second = (self.predictor(self.online(view)) for view in views)
        keys = self.keys(*views)
        return 0.5 * (self.criterion(first, keys[1]) + self.criterion(second, keys[0]))


class SimSiam(Loop):
    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk)
        self.head = modules.SimSiamProjectionHead(trunk.num_features, own.hidden, own.dim)
        self.predictor = modules.SimSiamPredictionHead(own.dim, own.predictor_hidden, own.dim)
        self.criterion = losses.NegativeCosineSimilarity()

    def loss(self, *views: Tensor) -> Tensor:
        first, second = (self.head(self.trunk(view)) for view in views)
        one = self.criterion(self.predictor(first), second.detach())
        return 0.5 * (one + self.criterion(self.predictor(second), first.detach()))


class SwAV(Loop):
    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        super().__init__(trunk)
        self.head = modules.SwaVProjectionHead(trunk.num_features, own.hidden, own.dim)
        self.prototypes = modules.SwaVPrototypes(own.dim, own.prototypes, 1)
        self.criterion = losses.SwaVLoss(own.temperature, sinkhorn_epsilon=own.epsilon)
        self.frozen, self.at = own.freeze_epochs, At(0, 0, 0, 0)

    def begin(self, at: At) -> None:
        self.prototypes.normalize()
        self.prototypes.n_steps_frozen_prototypes = self.frozen * at.steps // at.epochs
        self.at = at

    def loss(self, *views: Tensor) -> Tensor:
        rows = [F.normalize(self.head(self.trunk(view)), dim=1) for view in views]
        return self.criterion([self.prototypes(one, self.at.step) for one in rows], [])


class DINO(Following):
    def __init__(self, trunk: Any, own: SimpleNamespace) -> None:
        widths = trunk.num_features, own.hidden, own.bottleneck, own.prototypes
        more = {"batch_norm": True, "freeze_last_layer": own.freeze_epochs}
        super().__init__(trunk, partial(modules.DINOProjectionHead, *widths, **more), own)
        self.criterion = losses.DINOLoss(
            own.prototypes,
            teacher_temp=own.teacher_temperature,
            student_temp=own.temperature,
            center_momentum=own.centre_momentum,
        )

    def loss(self, *views: Tensor) -> Tensor:
        return self.criterion(self.keys(*views), [self.online(view) for view in views])

    def gradients_ready(self, at: At) -> None:
        self.head.cancel_last_layer_gradients(current_epoch=at.epoch)


METHODS = {
    "simclr": SimCLR,
    "moco-v2": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "swav": SwAV,
    "dino": DINO,
}


def loop(method: str, trunk: Any, own: SimpleNamespace, wheel: str) -> Loop:
    return METHODS[method](trunk, own)


def views(method: str, size: int, asked: SimpleNamespace, wheel: str) -> Views:
    """Return the method's own transform, as strong as every library's."""
    strengths = zip(("cj_bright", "cj_contrast", "cj_sat", "cj_hue"), asked.jitter, strict=True)
    # DINO's second view takes no overall strength, so that its default must stand: a half.
    overall = 0.5 if method == "dino" else 1.0
    common: Any = {name: value / overall for name, value in strengths}
    common |= {"cj_prob": asked.jitter_p, "cj_strength": overall, "hf_prob": asked.flip_p}
    common |= {"random_gray_scale": asked.grey_p}
    least, most = asked.crop_scale
    if method == "swav":
        scales: Any = {"crop_min_scales": (least,), "crop_max_scales": (most,)}
        crops: Any = {"crop_sizes": (size,), "crop_counts": (2,), **scales}
        return transforms.SwaVTransform(gaussian_blur=0.0, **crops, **common)
    if method == "dino":
        crops = {"global_crop_size": size, "global_crop_scale": (least, most), "n_local_views": 0}
        blur: Any = {"gaussian_blur": (0.0, 0.0, 0.0), "solarization_prob": 0.0}
        return transforms.DINOTransform(**crops, **blur, **common)
    if most != 1:
        raise ValueError("lightly's crops are of up to the whole image")
    common |= {"input_size": size, "min_scale": least, "gaussian_blur": 0.0}
    if method == "byol":
        first = transforms.BYOLView1Transform(solarization_prob=0.0, **common)
        second = transforms.BYOLView2Transform(solarization_prob=0.0, **common)
        return transforms.BYOLTransform(first, second)
    kinds = {"moco-v2": transforms.MoCoV2Transform, "simsiam": transforms.SimSiamTransform}
    return kinds.get(method, transforms.SimCLRTransform)(**common)
