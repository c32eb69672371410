"""``--observe probe``: a linear classifier trained alongside the network."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from coview.components import ViewsComponent, declared
from coview.distributed import mean_over_processes
from coview.errors import CoviewError, RequestError
from coview.evaluation.features import features
from coview.evaluation.metrics import class_count, measures
from coview.hookspecs import hookimpl
from coview.optim.supervised import MOMENTUM, cost, descend
from coview.records import Batch, Encoded
from coview.schedules import rate_scale
from coview.settings import ge, gt, setting
from coview.training.measure import by_first
from coview.weights.exported import ExportedBackbone, export

TRACKED = 0.01
"""Weight of a batch in the features' running mean and variance; larger for the first batches,
so that these are plain means at the start."""
TINY = 1e-5


class ProbeObserver:
    """Trains softmax regression on the step's own features and logs ``online_probe_top1``.

    Where images have several classes each, it trains logistic regression for every class, and
    logs ``online_probe_mean_average_precision``.

    The features are the online network's, of augmented views, and detached: no
    gradient, label or random number of the probe affects training. Labels are
    looked up by the batch's indices. The accuracy is *online*: the network still
    changes while the classifier learns, so it differs from a linear evaluation
    afterwards (``coview evaluate linear``).
    """

    @attrs.frozen
    class Settings:
        """How the classifier learns."""

        lr: float = setting(0.1, "learning rate at a batch size of 256, constant", gt(0))
        weight_decay: float = setting(0.0, "weight decay", ge(0))
        every: int = setting(1, "epochs between measurements on the test split", ge(1))

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state: dict[str, Tensor] = {}
        self._optimizer: Optimizer | None = None
        self._run: Any = None
        self._labels = torch.zeros(0, dtype=torch.int64)

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Build the classifier, from zero or from its saved state."""
        data, device = run.data, run.device
        several = data.multi_label
        truth = data.train.multi_hot if several else data.train.labels
        if truth is None or not (several or data.labelled):
            raise RequestError(
                f"--observe probe needs labels for training and test images, which {data.name} "
                "does not have."
            )
        self._run = run
        self._labels = truth.to(device)
        classes = class_count(data, truth, data.test.multi_hot if several else data.test.labels)
        width = self._network().width
        fresh = {
            "weights": torch.zeros(width, classes),
            "biases": torch.zeros(classes),
            "mean": torch.zeros(width),
            "variance": torch.ones(width),
            "steps": torch.zeros(()),
        }
        fresh |= {f"velocity_{name}": torch.zeros_like(fresh[name]) for name in WEIGHTS}
        for name, tensor in fresh.items():
            kept = self.state.get(name, tensor)
            if kept.shape != tensor.shape:
                raise RequestError("The saved state of --observe probe is of another network.")
            self.state[name] = kept.to(device)

    def _classifier(self) -> Optimizer:
        """Return the optimiser of weights and biases, with the saved momentum."""
        peak = self.settings.lr * rate_scale("linear", self._run.plan.batch_size)
        decays = {"weights": self.settings.weight_decay, "biases": 0.0}
        groups: list[dict[str, Any]] = []
        for name in WEIGHTS:
            self.state[name] = nn.Parameter(self.state[name])
            decay = decays[name]
            groups.append({"params": [self.state[name]], "peak": peak, "weight_decay": decay})
        optimizer = SGD(groups, lr=peak, momentum=MOMENTUM)
        for name in WEIGHTS:
            optimizer.state[self.state[name]]["momentum_buffer"] = self.state[f"velocity_{name}"]
        return optimizer

    @hookimpl
    def update_target(self, encoded: Encoded, batch: Batch) -> None:
        """Take one step of SGD on the batch's features."""
        rows = self._rows(encoded, len(batch.indices))
        state = self.state
        mean = mean_over_processes(rows.mean(dim=0))
        variance = mean_over_processes((rows - mean).square().mean(dim=0))
        state["steps"] += 1
        share = state["steps"].reciprocal().clamp(min=TRACKED)
        state["mean"].lerp_(mean, share)
        state["variance"].lerp_(variance, share)
        rows = (rows - mean) / (variance + TINY).sqrt()
        if self._optimizer is None:
            self._optimizer = self._classifier()
        with torch.enable_grad():
            scores = rows @ state["weights"] + state["biases"]
            loss = cost(scores, self._labels[batch.indices])
        descend(loss, self._optimizer, 1.0, mean_over_processes)

    @hookimpl
    def epoch_finished(self, run: Any, epoch: int) -> None:
        """Log the accuracy, or the mean average precision, on the test split."""
        if (epoch + 1) % self.settings.every == 0 or run.step == run.last_step:
            by_first(self._measure)(run)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the classifier, its momentum and the features' statistics."""
        return {name: tensor.detach() for name, tensor in self.state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.state = {name: tensor.clone() for name, tensor in state.items()}

    def _measure(self, run: Any) -> None:
        test = run.data.test
        rows = features(self._network(), test, device=run.device)
        state = {name: tensor.detach().cpu() for name, tensor in self.state.items()}
        rows = (rows - state["mean"]) / (state["variance"] + TINY).sqrt()
        truth = test.kept(test.multi_hot if run.data.multi_label else test.labels)
        found = measures(rows @ state["weights"] + state["biases"], truth)
        run.log(**{f"online_probe_{name}": value for name, value in found.items()})

    def _network(self) -> ExportedBackbone:
        """Return the online network, whichever network the recipe evaluates."""
        exported = export(self._run.method, self._run.card)
        exported.backbone = self._run.method.encoder.backbone()
        return exported.to(self._run.device)

    def _rows(self, encoded: Encoded, count: int) -> Tensor:
        """Return one row of features per image, (B, D), as the exported network gives them."""
        width = len(self.state["mean"])
        by_view = [rows.float() for rows in encoded.features.values()]
        if all(rows.shape == (count, width) for rows in by_view):
            # If views are crops of whole images, the first is enough; patches are averaged.
            views = self._run.method.components["views"]
            whole = declared(views, ViewsComponent, "normalization") is not None
            return by_view[0] if whole else torch.stack(by_view).mean(dim=0)
        if all(len(rows) == count for rows in by_view):
            joined = torch.cat(by_view, dim=1)
            if joined.shape[1] == width:
                return joined
        raise CoviewError(
            "--observe probe cannot match this encoder's features to images: their shapes are "
            f"{[tuple(rows.shape) for rows in by_view]} for {count} images, but the exported "
            f"network gives {width} features per image."
        )


WEIGHTS = ("weights", "biases")
