"""stable-pretraining's method classes as they are, with its transforms."""

import copy
from types import SimpleNamespace
from typing import Any

from PIL import Image
from stable_pretraining import methods
from stable_pretraining.data import transforms
from torch import Tensor, nn

from coview.records import Step
from coview.studies.peers import Loop, Views

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Whole(Loop):
    """A method's class, which gives the loss of two views."""

    def __init__(self, method: nn.Module, trunk: Any) -> None:
        super().__init__(trunk)
        self.method: Any = method

    def loss(self, *views: Tensor) -> Tensor:
        return self.method(*views).loss

    def finish(self, at: Step) -> None:
        # What its callback does after each step.
        for module in self.modules():
            if hasattr(module, "update_teacher"):
                module.update_ema_coefficient(at.epoch, at.total_epochs)
                module.update_teacher()

    def evaluated(self, which: str) -> nn.Module:
        return self.method.backbone.teacher if which == "target" else self.trunk


class BothWays(Whole):
    """MoCo's class compares in one direction, with the queue that it has at the time."""

    def __init__(self, method: nn.Module, trunk: Any) -> None:
        super().__init__(method, trunk)
        # Two: it writes into its queue, which the other direction's gradients still need.
        self.queues = nn.ModuleList([self.method.queue, copy.deepcopy(self.method.queue)])

    def loss(self, *views: Tensor) -> Tensor:
        losses = []
        for queue, ordered in zip(self.queues, (views, views[::-1]), strict=True):
            self.method.queue = queue
            losses.append(self.method(*ordered).loss)
        return 0.5 * (losses[0] + losses[1])


class Crops(Whole):
    """DINO's class takes lists."""

    def loss(self, *views: Tensor) -> Tensor:
        return self.method(global_views=views).loss


def loop(method: str, trunk: Any, own: SimpleNamespace, wheel: str) -> Loop:
    first, last = getattr(own, "decay", (None, None))
    decay: Any = {"ema_decay_start": first, "ema_decay_end": last}
    if method == "simclr":
        widths = own.hidden, own.dim
        return Whole(methods.SimCLR(trunk, widths, own.temperature), trunk)
    if method == "moco-v2":
        given: Any = (own.hidden, own.dim), own.queue, own.temperature
        return BothWays(methods.MoCov2(trunk, *given, **decay), trunk)
    if method == "byol":
        given = (own.hidden, own.dim), (own.predictor_hidden, own.dim)
        return Whole(methods.BYOL(trunk, *given, **decay), trunk)
    if method == "simsiam":
        return Whole(methods.SimSiam(trunk, own.dim, own.predictor_hidden), trunk)
    if method == "swav":
        given = (own.hidden, own.dim), own.prototypes, own.temperature, 3, own.epsilon
        return Whole(methods.SwAV(trunk, *given), trunk)
    widths = own.hidden, own.bottleneck, own.prototypes
    given = {"temperature_student": own.temperature, "warmup_epochs_temperature_teacher": 0}
    given |= {"temperature_teacher": own.teacher_temperature, **decay}
    given |= {"center_momentum": own.centre_momentum}
    return Crops(methods.DINO(trunk, *widths, **given), trunk)


def views(method: str, size: int, asked: SimpleNamespace, wheel: str) -> Views:
    """Return its operations in the order of its examples, made twice, whatever the method."""
    one = transforms.Compose(
        transforms.RGB(),
        transforms.RandomResizedCrop((size, size), scale=tuple(asked.crop_scale)),
        transforms.ColorJitter(*asked.jitter, p=asked.jitter_p),
        transforms.RandomGrayscale(p=asked.grey_p),
        transforms.RandomHorizontalFlip(p=asked.flip_p),
        transforms.ToImage(mean=MEAN, std=STD),
    )
    both = transforms.MultiViewTransform([one, one])

    def made(image: Image.Image) -> list[Tensor]:
        return [view["image"] for view in both({"image": image})["views"]]

    return made
