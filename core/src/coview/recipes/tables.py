"""Settings of the recipe itself, and of its tables ``data`` and ``backbone``."""

from __future__ import annotations

import attrs

from coview.settings import between, ge, gt, one_of, setting

SMALL_IMAGE = 64
"""Images up to this many pixels per side use the ``small`` preset."""
DEFAULT_SIZE = 256
"""Pixels per side to which larger images, and images of several sizes, are resized."""
POLICIES = ("skip", "stop")
"""What can happen when an image cannot be read."""
STEMS = ("7x7", "3x3")


@attrs.frozen
class NoSettings:
    """No settings."""


@attrs.frozen
class TrainingSettings:
    """The recipe's own settings."""

    epochs: int = setting(200, "passes over the training set", ge(1))
    batch_size: int = setting(256, "images per optimiser step, over all processes", ge(2))
    accumulate: int = setting(1, "micro-batches per optimiser step", ge(1))
    evaluates: str = setting(
        "online", "the network that is exported and evaluated", one_of("online", "target")
    )


@attrs.frozen
class DataSettings:
    """How images are loaded: the recipe's table ``data``."""

    size: int | None = setting(
        None,
        "pixels per side that the loader delivers (short side resized, centre cropped); "
        "none: the data set's own size, or 256 if that is larger or varies",
        gt(0),
    )
    channels: int | None = setting(
        None, "1 (grey), 3 (RGB) or as many as images have; none: as in the data set", gt(0)
    )
    holdout: float = setting(
        0.2, "share held out for testing if a data set has no test split", between(0.01, 0.9)
    )
    resident_mib: int = setting(
        2048, "a set up to this size (MiB, decoded) is decoded once and kept on the device", gt(0)
    )
    decoder: str = setting(
        "cpu",
        "decodes the JPEG files of sets too large for memory: cpu, or gpu (in batches, with "
        "CUDA; pixels differ in their last digits)",
        one_of("cpu", "gpu"),
    )
    on_bad_image: str = setting(
        "skip",
        "what to do with unreadable images: skip (another takes its place, up to 1 % of a "
        "split) or stop",
        one_of(*POLICIES),
    )

    def delivered_size(self, native: int) -> int:
        """Return the pixels per side that the loader delivers for images of ``native`` pixels."""
        return min(native, DEFAULT_SIZE) if self.size is None else self.size


@attrs.frozen
class BackboneSettings:
    """Settings of a backbone."""

    stem: str = setting(
        "7x7",
        "a ResNet's first layer: 7x7 (stride 2, then max-pooling: ImageNet) or "
        "3x3 (stride 1, no pooling: images of 64 pixels and less)",
        one_of(*STEMS),
    )
    zero_init_last: bool = setting(
        False, "start the last batch norm of every residual block at zero (ResNets)"
    )
    drop_path: float = setting(
        0.0,
        "probability of skipping the last residual block in training; proportionally less for "
        "earlier blocks (stochastic depth)",
        between(0, 1),
    )
    patch: int | None = setting(
        None, "pixels per side of a vision transformer's patches; none: as the model has", gt(0)
    )
