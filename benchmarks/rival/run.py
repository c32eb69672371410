"""python -m benchmarks.rival.run JSON: train once, and print what was found as JSON."""

import importlib
import json
import random
import re
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

import coview
from benchmarks import engine, runner
from benchmarks.rival.loop import Asked, train
from coview.studies.peers import Loop
from coview_report.lightly_peer import NAMES, OTHERWISE

DESIGN = runner.DESIGN["rivals"]
# Of the training images, to calibrate the untrained network's batch norms, as coview does.
CALIBRATION, QUICK = 2048, 400


class Standardised(nn.Module):
    """Images in [0, 1] to features, standardised as in training."""

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, mean: Any, std: Any) -> None:
        super().__init__()
        self.trunk = trunk
        self.register_buffer("mean", torch.as_tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.as_tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk((images - self.mean) / self.std)


class Clock:
    """Sees coview's run begin, with its images in memory, and its last step end."""

    @coview.hookimpl
    def run_started(self) -> None:
        self.memory = Memory()
        self.started = time.perf_counter()

    @coview.hookimpl
    def step_finished(self, run: Any) -> None:
        self.steps, self.seconds = run.step, time.perf_counter() - self.started
        self.last = self.memory.peak()


class Memory:
    """What is resident in this process from now on, in MiB; a parent's does not count."""

    def __init__(self) -> None:
        # Sets the high-water mark back: drawing or decoding a set takes more than training.
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
        self.start = self._mark()

    def peak(self) -> dict[str, float]:
        return {"start_mib": self.start, "peak_mib": self._mark()}

    def _mark(self) -> float:
        status = Path("/proc/self/status").read_text("utf-8")
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return round(int(kib) / 1024, 1)


def main(words: list[str]) -> None:
    print(json.dumps(once(**json.loads(words[0]))))


def once(
    method: str,
    library: str,
    data: str,
    seed: int,
    source: str,
    epochs: int = 0,
    wheel: str = "",
    quick: bool = False,
) -> dict[str, Any]:
    if library == "none":
        images = loaded(source)
        return {"knn_top1": top1(raw(images), images, quick)}
    asked = asked_of(method, data, seed, epochs, quick)
    if library == "coview":
        found, network = ours(method, data, source, asked)
    else:
        found, network = theirs(method, library, data, source, asked, wheel)
    images = loaded(source)
    untrained = Standardised(initial(images.size, seed), network.mean, network.std)
    calibration = images.train.images[:CALIBRATION].split(256)
    untrained = engine.calibrated(untrained, calibration)
    found["untrained_knn_top1"] = top1(untrained, images, quick)
    found["version"] = version(library, wheel)
    return {**found, "knn_top1": top1(network, images, quick)}


def loaded(source: str) -> Any:
    return engine.open_source(source).load(engine.DataSettings(channels=3))


def asked_of(method: str, data: str, seed: int, epochs: int = 0, quick: bool = False) -> Asked:
    most, epochs = (2 if quick else None), epochs or DESIGN["data"][data]["epochs"]
    rate = DESIGN["methods"][method]["lr"]
    return Asked(DESIGN["batch_size"], epochs, seed, most, rate, **DESIGN["optimizer"])


def seeded(seed: int) -> None:
    """Seed every generator that a library's transforms draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def initial(size: int, seed: int) -> Any:
    """Return the untrained trunk: the same weights for every library."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = engine.BackboneSettings(stem=DESIGN["stem"], zero_init_last=False)
        return engine.resnet10_quarter(3, size, settings)


def ours(method: str, data: str, source: str, asked: Asked) -> tuple[dict[str, Any], Any]:
    clock, trunk = Clock(), initial(engine.open_source(source).native_size(), asked.seed)
    given: Any = {"epochs": asked.epochs, "batch_size": asked.batch_size, "seed": asked.seed}
    given |= {"max_steps": asked.most_steps, "device": "cpu", "backbone": trunk}
    given |= {"preset": "small", "observe": [clock], "evaluate": False, "progress": False}
    given |= {"use": {"optimizer": "adamw", "schedule": "cosine"}, "set": settings(method, data)}
    with tempfile.TemporaryDirectory() as folder:
        run = coview.train(method, source, out=Path(folder) / "run", **given)
        network = coview.load_backbone(run.path, backbone=trunk)
    return {"steps": clock.steps, "seconds": clock.seconds, **clock.last}, network


def settings(method: str, data: str) -> dict[str, Any]:
    """Return coview's settings of a run, by its own names."""
    table, optimizer = DESIGN["methods"][method], DESIGN["optimizer"]
    names = {**NAMES, **OTHERWISE.get(method, {})}
    found = {names[key]: value for key, value in table.items() if key in names}
    if "decay" in table:
        first, last = table["decay"]
        found["target.decay"] = first if first == last else f"cosine({first}, {last})"
    found |= {f"views.{key}": value for key, value in DESIGN["views"].items()}
    found |= {"views.flip_p": DESIGN["data"][data]["flip_p"], "views.blur_p": 0.0}
    found |= {"optimizer.lr": table["lr"], "optimizer.lr_rule": "none"}
    found |= {"optimizer.weight_decay": optimizer["weight_decay"]}
    found |= {"optimizer.exclude_norm_and_bias": False}
    found |= {"schedule.warmup_epochs": optimizer["warmup_epochs"], "schedule.warmup_start": 0.0}
    found |= {"schedule.warmup_count": "steps", "schedule.warmup_closed": False}
    found |= {"schedule.per": "step", "schedule.final": 0.0, "evaluates": table["evaluates"]}
    return {**found, "data.channels": 3, **runner.flat(DESIGN["own"][method])}


def theirs(
    method: str, library: str, data: str, source: str, asked: Asked, wheel: str
) -> tuple[dict[str, Any], Standardised]:
    images, table = loaded(source), DESIGN["methods"][method]
    strengths = SimpleNamespace(**DESIGN["views"], flip_p=DESIGN["data"][data]["flip_p"])
    made: Any = importlib.import_module(f"benchmarks.rival.{library.replace('-', '_')}")
    seeded(asked.seed)
    trunk = initial(images.size, asked.seed)
    loop: Loop = made.loop(method, trunk, SimpleNamespace(**table), wheel)
    views, memory = made.views(method, images.size, strengths, wheel), Memory()
    found = {**train(loop, views, images.train.images, asked), **memory.peak()}
    return found, Standardised(loop.evaluated(table["evaluates"]), made.MEAN, made.STD)


def raw(images: Any) -> Any:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (images.mean, images.std))
    return engine.RawPixels(mean, std)


def top1(network: Any, images: Any, quick: bool) -> float:
    """Return kNN accuracy on held-out images, by coview's own protocol."""
    if quick:
        images = attrs.evolve(images, reference=few(images.reference), test=few(images.test))
    return engine.evaluate_knn(network, images, k=200).top1


def few(split: Any) -> Any:
    return engine.Split(split.images[:QUICK], split.labels[:QUICK])


def version(library: str, wheel: str) -> str:
    return Path(wheel).name.split("-")[1] if library == "solo-learn" else metadata.version(library)


if __name__ == "__main__":
    main(sys.argv[1:])
