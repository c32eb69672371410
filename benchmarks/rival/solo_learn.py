"""solo-learn's losses, target update and transforms, out of its wheel, with heads as its own."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers import of_solo_learn
from coview.records import Step
from coview.studies.peers import Loop, Momentum, Views

MEAN, STD = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)


def perceptron(*widths: int, norm: bool, bias: bool = True, act: Any = nn.ReLU) -> nn.Sequential:
    """Return linear layers, with (batch norm and) an activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after, bias=bias))
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers.append(act())
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


class Following(Momentum):
    def __init__(self, trunk: Any, head: Any, own: SimpleNamespace, wheel: str) -> None:
        super().__init__(trunk, head)
        self.updater = of_solo_learn(wheel, "utils", "momentum").MomentumUpdater(*own.decay)

    def finish(self, at: Step) -> None:
        for online, target in zip((self.trunk, self.head), self.target, strict=True):
            self.updater.update(online, target)
        self.updater.update_tau(at.number + 1, at.total_steps)


class SimCLR(Loop):
    def __init__(self, trunk: Any, own: SimpleNamespace, wheel: str) -> None:
        super().__init__(trunk)
        self.head = perceptron(trunk.num_features, own.hidden, own.dim, norm=False)
        self.criterion = of_solo_learn(wheel, "losses", "simclr").simclr_loss_func
        self.temperature = own.temperature

    def loss(self, *views: Tensor) -> Tensor:
        rows = [self.head(self.trunk(view)) for view in views]
        return self.criterion(*rows, temperature=self.temperature)


class MoCo(Following):
    queue: Tensor

    def __init__(self, trunk: Any, own: SimpleNamespace, wheel: str) -> None:
        widths = trunk.num_features, own.hidden, own.dim
        super().__init__(trunk, lambda: perceptron(*widths, norm=False), own, wheel)
        self.criterion = of_solo_learn(wheel, "losses", "moco").moco_loss_func
        self.temperature, self.place = own.temperature, 0
        queue = F.normalize(torch.randn(2, own.dim, own.queue), dim=1)
        self.register_buffer("queue", queue)

    def loss(self, *views: Tensor) -> Tensor:
        queries = [F.normalize(self.online(view), dim=-1) for view in views]
        keys = [F.normalize(key, dim=-1) for key in self.keys(*views)]
        queue = self.queue.clone()
        one = self.criterion(queries[0], keys[1], queue[1], self.temperature)
        other = self.criterion(queries[1], keys[0], queue[0], self.temperature)
        self.queue[:, :, self.place : self.place + len(keys[0])] = torch.stack(keys).mT
        self.place = (self.place + len(keys[0])) % self.queue.shape[2]
        return (one + other) / 2


class BYOL(Following):
    def __init__(self, trunk: Any, own: SimpleNamespace, wheel: str) -> None:
        widths = trunk.num_features, own.hidden, own.dim
        super().__init__(trunk, lambda: perceptron(*widths, norm=True), own, wheel)
        self.predictor = perceptron(own.dim, own.predictor_hidden, own.dim, norm=True)
        self.criterion = of_solo_learn(wheel, "losses", "byol").byol_loss_func

    def loss(self, *views: Tensor) -> Tensor:
        first, second = (self.predictor(self.online(view)) for view in views)
        keys = self.keys(*views)
        return self.criterion(second, keys[0]) + self.criterion(first, keys[1])


class SimSiam(Loop):
    def __init__(self, trunk: Any, own: SimpleNamespace, wheel: str) -> None:
        super().__init__(trunk)
        widths = trunk.num_features, own.hidden, own.hidden, own.dim
        head = perceptron(*widths, norm=True, bias=False)
        head[-1].bias.requires_grad_(False)
        self.head = nn.Sequential(*head, nn.BatchNorm1d(own.dim, affine=False))
        narrow = own.dim, own.predictor_hidden, own.dim
        self.predictor = perceptron(*narrow, norm=True, bias=False)
        self.criterion = of_solo_learn(wheel, "losses", "simsiam").simsiam_loss_func

    def groups(self) -> list[dict[str, Any]]:
        fixed = {"params": list(self.predictor.parameters()), "fixed": True}
        others = [*self.trunk.parameters(), *self.head.parameters()]
        return [{"params": [p for p in others if p.requires_grad]}, fixed]

    def loss(self, *views: Tensor) -> Tensor:
        first, second = (self.head(self.trunk(view)) for view in views)
        one = self.criterion(self.predictor(first), second)
        return one / 2 + self.criterion(self.predictor(second), first) / 2


class SwAV(Loop):
    def __init__(self, trunk: Any, own: SimpleNamespace, wheel: str) -> None:
        super().__init__(trunk)
        self.head = perceptron(trunk.num_features, own.hidden, own.dim, norm=True)
        self.prototypes = nn.utils.weight_norm(nn.Linear(own.dim, own.prototypes, bias=False))
        self.codes = of_solo_learn(wheel, "utils", "sinkhorn_knopp").SinkhornKnopp(3, own.epsilon)
        self.criterion = of_solo_learn(wheel, "losses", "swav").swav_loss_func
        self.temperature, self.frozen = own.temperature, own.freeze_epochs

    def loss(self, *views: Tensor) -> Tensor:
        rows = [F.normalize(self.head(self.trunk(view))) for view in views]
        scores = [self.prototypes(one) for one in rows]
        return self.criterion(scores, [self.codes(one) for one in scores], self.temperature)

    def gradients_ready(self, at: Step) -> None:
        for parameter in self.prototypes.parameters() if at.epoch < self.frozen else ():
            parameter.grad = None


class Head(nn.Module):
    """DINO's."""

    def __init__(self, width: int, own: SimpleNamespace) -> None:
        super().__init__()
        widths = width, own.hidden, own.hidden, own.bottleneck
        self.mlp = perceptron(*widths, norm=True, act=nn.GELU)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        last = nn.Linear(own.bottleneck, own.prototypes, bias=False)
        self.last: Any = nn.utils.weight_norm(last)
        self.last.weight_g.data.fill_(1)
        self.last.weight_g.requires_grad_(False)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(F.normalize(self.mlp(rows), dim=-1))


class DINO(Following):
    def __init__(self, trunk: Any, own: SimpleNamespace, wheel: str) -> None:
        super().__init__(trunk, lambda: Head(trunk.num_features, own), own, wheel)
        # Its schedule is of so many epochs; the temperature stays, so that one will do.
        warm = own.teacher_temperature
        made = of_solo_learn(wheel, "losses", "dino").DINOLoss
        more = {"student_temp": own.temperature, "center_momentum": own.centre_momentum}
        self.criterion = made(own.prototypes, warm, warm, 0, 1, **more)
        self.frozen = own.freeze_epochs

    def loss(self, *views: Tensor) -> Tensor:
        rows = torch.cat([self.online(view) for view in views])
        return self.criterion(rows, torch.cat(self.keys(*views)))

    def gradients_ready(self, at: Step) -> None:
        for parameter in self.head.last.parameters() if at.epoch < self.frozen else ():
            parameter.grad = None


METHODS = {
    "simclr": SimCLR,
    "moco-v2": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "swav": SwAV,
    "dino": DINO,
}


def loop(method: str, trunk: Any, own: SimpleNamespace, wheel: str) -> Loop:
    return METHODS[method](trunk, own, wheel)


def views(method: str, size: int, asked: SimpleNamespace, wheel: str) -> Views:
    """Return its transform for sets of one's own, made twice, whatever the method."""
    files = of_solo_learn(wheel, "utils", "pretrain_dataloader")
    least, most = asked.crop_scale
    more: Any = {"color_jitter_prob": asked.jitter_p, "gray_scale_prob": asked.grey_p}
    more |= {"horizontal_flip_prob": asked.flip_p, "gaussian_prob": 0.0}
    more |= {"min_scale": least, "max_scale": most, "crop_size": size}
    made = files.CustomTransform(*asked.jitter, **more, mean=MEAN, std=STD)
    return files.prepare_n_crop_transform([made], [2])
