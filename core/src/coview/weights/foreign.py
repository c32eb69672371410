"""Load other programs' checkpoints, recognised by the names of their tensors.

Nothing in a file is executed: pickles are read as data only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from coview.errors import CoviewError, RequestError

_TABLES = (
    *("state_dict", "model", "teacher", "student", "model_state_dict", "classy_state_dict"),
    *("base_model", "trunk"),
)
"""Keys under which checkpoints keep their tensors, in the order in which they are tried."""
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Names of a ResNet's children by their number in ``nn.Sequential(*resnet.children())``."""


def _numbered(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"{_SEQUENTIAL.get(first, first)}{dot}{rest}"


@attrs.frozen
class Layout:
    """How a program names a backbone's tensors: with a prefix, perhaps with numbered children.

    Attributes:
        program: the program's name.
        prefix: pattern at the start of the tensors' names.
        rename: turns the rest of the name into the backbone's own.
        sign: pattern of a name that only this program's files have; None: not needed.
    """

    program: str
    prefix: str
    rename: Callable[[str], str] = str
    sign: str | None = None

    def possible(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether this program may have written the file."""
        return self.sign is None or any(re.match(self.sign, key) for key in tensors)

    def taken(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with the prefix, under the backbone's own names."""
        return {
            self.rename(key[found.end() :]): tensor
            for key, tensor in tensors.items()
            if (found := re.match(self.prefix, key))
        }


LAYOUTS = (
    Layout("MoCo", r"module\.encoder_q\."),
    Layout("MoCo v3", r"module\.base_encoder\."),
    Layout("SimSiam", r"module\.encoder\."),
    Layout("VISSL", r"(module\.)?(trunk\.)?(base_model\.)?_feature_blocks\."),
    Layout("DINO", r"(module\.)?backbone\.", sign=r"(module\.)?head\.last_layer"),
    Layout("solo-learn", r"(backbone|encoder)\."),
    Layout("lightly", r"(module\.)?backbone\.", _numbered),
    Layout("SwAV", r"module\."),
    Layout("timm or torchvision", r""),
)


@attrs.frozen
class Matched:
    """A backbone found in a file.

    Attributes:
        program: the program whose layout the file has.
        tensors: the backbone's tensors, under its own names.
        ignored: names of the file's other tensors (heads, other networks).
    """

    program: str
    tensors: dict[str, Tensor]
    ignored: tuple[str, ...]

    def report(self, path: Path) -> str:
        """Return a sentence about what matched."""
        heads = sorted({".".join(name.split(".")[:2]) for name in self.ignored})
        listed = f" ({', '.join(heads[:6])}{', ...' if len(heads) > 6 else ''})" if heads else ""
        return (
            f"{path} is laid out as {self.program}: all {len(self.tensors)} tensors of the "
            f"backbone matched, {len(self.ignored)} others were left out{listed}."
        )


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file, or a pickle as data only.

    Raises:
        RequestError: there is no such file, or reading it would execute code.
        CoviewError: it is damaged.
    """
    if not path.is_file():
        raise RequestError(f"There are no weights at {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CoviewError(f"{path} is not a complete safetensors file: {error}") from error
    except Exception as error:
        raise RequestError(_unreadable(path, str(error))) from error
    if not isinstance(content, Mapping):
        raise RequestError(f"{path} holds a {type(content).__name__}, not tensors by name.")
    return dict(content)


def _unreadable(path: Path, problem: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", problem)
    if found is None:
        return f"{path} cannot be read as weights: {problem.partition(chr(10))[0]}"
    return (
        f"{path} holds more than data (an object of {found[1]}), and coview executes nothing from "
        "a file. Save only its state_dict with torch.save, or as safetensors."
    )


def match(content: Mapping[str, Any], backbone: nn.Module, path: Path) -> Matched:
    """Find a backbone in a checkpoint: all its tensors, with the same shapes.

    Raises:
        RequestError: no layout has them all; the message describes the closest one.
    """
    wanted = backbone.state_dict()
    # Old checkpoints, and many safetensors files, lack this counter.
    needed = {k: v for k, v in wanted.items() if not k.endswith("num_batches_tracked")}
    best: tuple[int, Layout, dict[str, Tensor], Mapping[str, Tensor]] | None = None
    for tensors in _tables(content):
        for layout in (each for each in LAYOUTS if each.possible(tensors)):
            taken = layout.taken(tensors)
            fitting = sum(k in taken and taken[k].shape == v.shape for k, v in needed.items())
            if best is None or fitting > best[0]:
                best = (fitting, layout, taken, tensors)
    if best is None or best[0] == 0:
        raise RequestError(f"{path} holds no tensor of this backbone under any known name.")
    fitting, layout, taken, tensors = best
    if fitting < len(needed):
        raise RequestError(_misfit(path, layout, taken, needed, fitting))
    own = {k: taken[k] for k in wanted if k in taken}
    return Matched(layout.program, own, _others(layout, tensors, own))


def _others(
    layout: Layout, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[str, ...]:
    used = {
        key
        for key in tensors
        if (found := re.match(layout.prefix, key)) and layout.rename(key[found.end() :]) in own
    }
    return tuple(key for key in tensors if key not in used)


def _misfit(
    path: Path,
    layout: Layout,
    taken: Mapping[str, Tensor],
    needed: Mapping[str, Tensor],
    fitting: int,
) -> str:
    name = next(k for k, v in needed.items() if k not in taken or taken[k].shape != v.shape)
    there = f"is {tuple(taken[name].shape)} in the file" if name in taken else "is missing"
    return (
        f"{path} is laid out as {layout.program}, but does not fit this backbone: {fitting} of "
        f"{len(needed)} tensors match. {name}, {tuple(needed[name].shape)} here, {there}."
    )


def _tables(content: Mapping[str, Any]) -> Iterator[Mapping[str, Tensor]]:
    """Yield all tables of tensors in a checkpoint, preferred ones first."""
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors:
        yield tensors
    for name in (*_TABLES, *(k for k in content if k not in _TABLES)):
        if isinstance(content.get(name), Mapping):
            yield from _tables(content[name])


def load_into(backbone: nn.Module, matched: Matched) -> None:
    """Load the tensors into a backbone; counters that the file lacks stay as they are."""
    backbone.load_state_dict({**backbone.state_dict(), **matched.tensors})
