"""Backbones of the user's own: a module, or a function that makes one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.errors import RequestError
from coview.own_code import Loaded, load
from coview.plan import BackboneSpec

LAST = ("fc", "classifier", "head", "heads", "last_linear")
"""What networks call the layer that gives class scores."""


@attrs.frozen(eq=False)
class OwnNetwork:
    """Builds the backbone that a name of the user's own code stands for.

    Attributes:
        loaded: a module, or a function that returns one: without arguments, or with
            the number of channels and the image size.
    """

    loaded: Loaded

    def __call__(self, channels: int, image_size: int, settings: Any) -> nn.Module:
        """Return a new network; ``num_features`` is its width D.

        Raises:
            RequestError: it is no network that gives one vector per image.
        """
        thing = self.loaded.thing
        if isinstance(thing, nn.Module):
            made: Any = copy.deepcopy(thing)
        else:
            made = self.loaded.call(*arguments_of(thing, channels, image_size, self.loaded.name))
        if not isinstance(made, nn.Module):
            raise RequestError(
                f"{self.loaded.name} must return a torch.nn.Module, not {type(made).__name__}."
            )
        made.num_features = width_of(made, channels, image_size)  # type: ignore[assignment]
        return made


def own_network(name: str) -> OwnNetwork:
    """Import what a name stands for.

    Raises:
        RequestError: it cannot be imported, or is neither a module nor a function.
    """
    loaded = load(name)
    if not callable(loaded.thing):
        raise RequestError(
            f"{loaded.name} must be a function that returns a torch.nn.Module, not "
            f"{type(loaded.thing).__name__}."
        )
    return OwnNetwork(loaded)


def arguments_of(
    function: Callable[..., Any], channels: int, image_size: int, name: str
) -> tuple[int, ...]:
    """Return what to call a function with: nothing, or the channels and the image size.

    A function that can be called with nothing is, unless its first two parameters are
    called ``channels`` and ``image_size``.

    Raises:
        RequestError: it takes something else.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ()
    both = (channels, image_size)
    if list(signature.parameters)[:2] == ["channels", "image_size"]:
        return both
    for arguments in ((), both):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return arguments
    raise RequestError(
        f"{name} must take no arguments, or (channels, image_size), not {signature}."
    )


def from_module(module: nn.Module, channels: int, image_size: int) -> BackboneSpec:
    """Return a spec of an existing module (copied for every build, with its weights)."""
    width = width_of(module, channels, image_size)

    def build(channels: int, image_size: int, settings: Any) -> nn.Module:
        built = copy.deepcopy(module)
        built.num_features = width  # type: ignore[assignment]
        return built

    return BackboneSpec(type(module).__name__, build)


def width_of(module: nn.Module, channels: int, image_size: int) -> int:
    """Return how many features a network gives: what it declares, or returns for one image.

    timm's networks declare what comes before their classifier, so one with classes is called.

    Raises:
        RequestError: it fails, or does not return one vector.
    """
    declared = getattr(module, "num_features", None)
    if isinstance(declared, int) and not getattr(module, "num_classes", 0):
        return declared
    name, image = type(module).__name__, f"{channels}x{image_size}x{image_size} image"
    try:
        shape = _returned(module, channels, image_size)
    except Exception as error:
        raise RequestError(
            f"The backbone {name} fails on one {image} ({type(error).__name__}: {error})."
        ) from error
    if shape is None or len(shape) != 2:
        raise RequestError(
            f"The backbone {name} must return one vector per image, (B, D), but it returned "
            f"{'no tensor' if shape is None else tuple(shape)} for one {image}."
        )
    return shape[1]


@torch.no_grad()
def _returned(module: nn.Module, channels: int, image_size: int) -> torch.Size | None:
    first = next(module.parameters(), torch.zeros(()))
    images = torch.zeros(1, channels, image_size, image_size, device=first.device)
    was_training = module.training
    try:
        features = module.eval()(images)
    finally:
        module.train(was_training)
    return features.shape if isinstance(features, Tensor) else None


def classifier_note(network: nn.Module) -> str | None:
    """Return a sentence if a network ends in a classifier; None: it does not seem to.

    Args:
        network: a backbone, whose ``num_features`` is the width of what it returns.
    """
    width, kind = getattr(network, "num_features", None), type(network).__name__
    told = "class scores would be trained as features and exported. To leave it out, write"
    if hasattr(network, "reset_classifier") and getattr(network, "num_classes", 0) == width:
        return (
            f"The backbone {kind} ends in a classifier ({width} classes): {told} num_classes=0 "
            "in timm.create_model(...)."
        )
    for name in LAST:
        part = getattr(network, name, None)
        last = list(part.modules())[-1] if isinstance(part, nn.Module) else None
        if not isinstance(last, nn.Linear) or last.out_features != width:
            continue
        place = name if part is last else f"{name}[-1]"
        return (
            f"The backbone {kind} seems to end in a classifier ({name}: {last.in_features} to "
            f"{width}): {told} {place} = nn.Identity()."
        )
    return None
