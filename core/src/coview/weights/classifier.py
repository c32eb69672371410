"""Classifiers: a backbone, perhaps layers of a head, and a linear layer; and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
from safetensors.torch import save_file
from torch import Tensor, nn

from coview.errors import RequestError
from coview.files import replacing
from coview.nn.backbones import find_backbone
from coview.nn.own import OwnNetwork
from coview.weights.card import WeightCard
from coview.weights.exported import CLASSIFIER, ExportedBackbone, build_backbone, read


class Classifier(nn.Module):
    """Backbone, perhaps layers of the projection head, and a linear classifier."""

    def __init__(self, network: ExportedBackbone, head: nn.Module, last: nn.Linear) -> None:
        super().__init__()
        self.network, self.head, self.last = network, head, last

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, K)."""
        scores: Tensor = self.last(self.head(self.network(images)).float())
        return scores


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write weights and all that is needed to build the network again, atomically.

    Raises:
        RequestError: the head has layers that cannot be described, or the
            backbone cannot be built without its views.
    """
    refuse_unsavable(classifier.network)
    about = {
        "meta": classifier.network.meta,
        "head": _described(classifier.head),
        "last": [classifier.last.in_features, classifier.last.out_features],
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={CLASSIFIER: json.dumps(about)})


def refuse_unsavable(network: ExportedBackbone) -> None:
    """Refuse a backbone that cannot be built again from a classifier's file.

    Raises:
        RequestError: it was a Python object, or cannot be built without its views.
    """
    if network.views is not None or network.card.given:
        raise RequestError(
            "This backbone cannot be saved with a classifier: it is one of your own, or needs its "
            "method's views."
        )


def load_classifier(path: Path) -> Classifier:
    """Load a classifier written by :func:`save_classifier`, in evaluation mode.

    Raises:
        RequestError: there is no such file, or it does not hold a classifier.
        CoviewError: it is damaged.
    """
    if not path.is_file():
        raise RequestError(f"There is no classifier at {path}.")
    metadata, tensors = read(path)
    if CLASSIFIER not in metadata:
        raise RequestError(
            f"{path} does not hold a classifier. To write one: coview evaluate finetune (or "
            "linear) RUN --save FILE"
        )
    about = json.loads(metadata[CLASSIFIER])
    card = WeightCard.of(about["meta"])
    network = ExportedBackbone(build_backbone(card), card)
    classifier = Classifier(network, _rebuilt(about["head"]), nn.Linear(*about["last"]))
    classifier.load_state_dict(tensors)
    return classifier.eval()


def student_of(teacher: Classifier, backbone: str | None) -> Classifier:
    """Return an untrained classifier for the teacher's images and classes.

    Args:
        teacher: the student has its stem and preprocessing.
        backbone: a registered or timm name; None: the teacher's own.

    Raises:
        RequestError: there is no such name, or it is that of code of the user's own.
    """
    card = teacher.network.card
    if backbone is not None and isinstance(find_backbone(backbone)[0], OwnNetwork):
        raise RequestError(
            f"A student must be a registered or timm network: a file of {backbone} could not be "
            "loaded again."
        )
    if backbone is not None:
        settings = {**card.settings, "patch": None, "drop_path": 0.0}
        card = attrs.evolve(card, backbone=backbone, heads=None, settings=settings)
    network = ExportedBackbone(build_backbone(card), card)
    last = nn.Linear(network.width, teacher.last.out_features)
    return Classifier(network, nn.Identity(), last)


def _described(module: nn.Module) -> list[Any]:
    if isinstance(module, nn.Sequential):
        return ["sequence", [_described(child) for child in module]]
    if isinstance(module, nn.Linear):
        return ["linear", module.in_features, module.out_features, module.bias is not None]
    if isinstance(module, nn.BatchNorm1d):
        return ["batch", module.num_features, module.affine]
    if isinstance(module, nn.LayerNorm):
        return ["layer", list(module.normalized_shape)]
    if isinstance(module, nn.ReLU):
        return ["relu"]
    if isinstance(module, nn.Identity):
        return ["identity"]
    raise RequestError(f"A head with a {type(module).__name__} cannot be saved.")


def _rebuilt(described: list[Any]) -> nn.Module:
    kind, *values = described
    if kind == "sequence":
        return nn.Sequential(*(_rebuilt(child) for child in values[0]))
    if kind == "linear":
        return nn.Linear(values[0], values[1], bias=values[2])
    if kind == "batch":
        return nn.BatchNorm1d(values[0], affine=values[1])
    if kind == "layer":
        return nn.LayerNorm(values[0])
    return nn.ReLU() if kind == "relu" else nn.Identity()
