"""Settings of the recipe itself, and of its tables ``data`` and ``backbone``."""

from __future__ import annotations

import attrs

from coview.schedules import Schedule
from coview.settings import between, ge, gt, matching, one_of, setting

SMALL_IMAGE = 64
"""Images of up to this many pixels per side use the ``small`` preset."""
SMALL_PRESETS = ("small", "tiny")
"""Presets for images of up to that size; larger ones are made as small for them."""
FEW_IMAGES = {"tiny": 2_000, "small": 10_000}
"""The preset of a set of larger images with fewer images than this: coview's own rule."""
DEFAULT_SIZE = 256
"""Pixels per side of larger images, and of images of several sizes, once loaded."""
POLICIES = ("skip", "stop")
"""What can happen when an image cannot be read."""
STEMS = ("7x7", "3x3")
HELD_OUT = 0.2
NUMBER = r"-?\d+(\.\d*)?(e[-+]?\d+)?"
FITS = ("auto", "whole", "square")
EARLIER = {"background": "drop", "orientation": "ignore", "range": "dtype", "fit": "square"}
"""What runs and weights did that are older than these settings of the data."""


@attrs.frozen
class NoSettings:
    """No settings."""


@attrs.frozen
class Weight:
    """What a loss or views component may have beside its own settings."""

    weight: float | Schedule = setting(
        1.0, "share in the sum of losses, or in the mixture of views", ge(0)
    )


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
        "image size in pixels (short side resized, then centre-cropped); "
        "none: the data set's own size, or 256 if that is larger or varies",
        gt(0),
    )
    channels: int | None = setting(
        None, "1 (grey), 3 (RGB) or as many as the images have; none: the data set's own", gt(0)
    )
    fit: str = setting(
        "auto",
        "what training's crops are cut from: whole (the image itself, at its own size), square "
        "(its centre, resized to data.size: faster, but a quarter of a photograph is never seen "
        "and most crops are enlargements), or auto (whole above 64 pixels, if the views can)",
        one_of(*FITS),
    )
    whole_side: int | None = setting(
        None,
        "whole images of more pixels than this squared are reduced by a whole factor while they "
        "are read, to no fewer; none: what the smallest crop needs to be no enlargement",
        gt(0),
    )
    background: str = setting(
        "white",
        "what transparent pixels show: a colour (white, #808080), or drop: colours hidden there",
        matching(r"[a-z]+|#[0-9a-fA-F]{6}", "drop, a colour's name or #RRGGBB"),
    )
    range: str = setting(
        "auto",
        "values of more than 8 bits that become black and white: LOW,HIGH; dtype (all that the "
        "type can hold; 0 to 1 for floats); measure (0.1 % and 99.9 % of a sample's values); or "
        "auto (dtype if the sample fills a quarter of it, else measure)",
        matching(rf"auto|dtype|measure|{NUMBER},{NUMBER}", "LOW,HIGH, dtype, measure or auto"),
    )
    orientation: str = setting(
        "apply", "EXIF orientation: apply or ignore", one_of("apply", "ignore")
    )
    max_pixels: int = setting(
        1 << 28, "largest image (width x height, times pages or channels of a stack)", gt(0)
    )
    holdout: float | None = setting(
        None,
        "share held out for testing if there is no test split; none: 0.2 of images with labels",
        between(0, 0.9),
    )
    resident_mib: int = setting(
        2048, "data up to this size (MiB, decoded) are decoded once and kept on the device", gt(0)
    )
    decoder: str = setting(
        "cpu",
        "decoder for the JPEG files of data sets too large for memory: cpu, or gpu (in batches, "
        "CUDA only; pixels differ in their last digits)",
        one_of("cpu", "gpu"),
    )
    on_bad_image: str = setting(
        "skip",
        "what to do with an unreadable image: skip (another takes its place) or stop",
        one_of(*POLICIES),
    )
    bad_limit: float = setting(
        0.01, "unreadable images allowed in a split: a share, or from 1 on a number", ge(0)
    )

    def held_out(self, labelled: bool) -> float:
        """Return the share of images to hold out where there is no test split."""
        return (HELD_OUT if labelled else 0.0) if self.holdout is None else self.holdout

    cache: str = setting(
        "auto",
        "keep images that fit into data.resident_mib: auto (unless they change from call to call), "
        "on (as they are first read) or off (read anew every epoch)",
        one_of("auto", "on", "off"),
    )

    def delivered_size(self, native: int) -> int:
        """Return the size in pixels that the loader delivers for images of ``native`` pixels."""
        return min(native, DEFAULT_SIZE) if self.size is None else self.size


@attrs.frozen
class BackboneSettings:
    """Settings of a backbone, beside its name."""

    stem: str = setting(
        "7x7",
        "a ResNet's first layer: 7x7 (stride 2, then max-pooling: ImageNet) or "
        "3x3 (stride 1, no pooling: images of up to 64 pixels)",
        one_of(*STEMS),
    )
    stem_padding: int = setting(1, "zeros around the image for a 3x3 stem", ge(0))
    zero_init_last: bool = setting(
        False, "start the last batch norm of every residual block at zero (ResNets)"
    )
    drop_path: float = setting(
        0.0,
        "stochastic depth: probability that the last residual block is skipped in training; "
        "proportionally less for earlier ones",
        between(0, 1),
    )
    patch: int | None = setting(
        None, "patch size in pixels of a vision transformer; none: the backbone's own", gt(0)
    )


@attrs.frozen
class OwnViewSettings:
    """Settings of views that are a transform of the user's own."""

    symmetric: bool = setting(
        True, "whether every view is both query and key; else the first is compared with the others"
    )
