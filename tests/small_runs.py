"""Every method that trains on images, and settings with which its run is seconds."""

from __future__ import annotations

from typing import Any

from coview.components import EncoderComponent, declared
from coview.recipes.recipe import method_names
from coview.testing.recipes import resolved

METHODS = sorted(name for name in method_names() if not name.endswith("-audio"))
NARROW = {
    "backbone.stem": "7x7",
    "encoder.hidden": 32,
    "encoder.predictor_hidden": 32,
    "encoder.outputs": 32,
    "encoder.prototypes": 32,
    "negatives.size": 100,
}


def options(method: str) -> dict[str, Any]:
    """Return a small network, a batch size and those narrow settings that the method has."""
    found = resolved(method, preset="small")

    def has(key: str) -> bool:
        table, name = key.split(".")
        return hasattr(found.part(table).settings, name)

    encoder = found.part("encoder").factory
    backbone = declared(encoder, EncoderComponent, "example_backbone") or "resnet10-quarter"
    if backbone != "resnet10-quarter":  # a transformer has no stem
        return {"preset": "small", "backbone": backbone, "batch_size": 16, "set": {}}
    return {
        "preset": "small",
        "backbone": backbone,
        "batch_size": 16,
        "set": {key: NARROW[key] for key in NARROW if has(key)},
    }
