"""Load other programs' checkpoints, recognised by the names of their tensors.

Nothing in a file is executed: pickles are read as data only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
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


SHOWN = 5
"""Number of names shown of a file that has nothing that is wanted."""


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

    A program that is not known may write any one prefix before all names
    (``model.``, ``module._orig_mod.``): it is found where what remains fits.

    Raises:
        RequestError: no layout has them all; the message describes the closest one.
    """
    wanted = backbone.state_dict()
    # Old checkpoints, and many safetensors files, lack this counter.
    needed = {k: v for k, v in wanted.items() if not k.endswith("num_batches_tracked")}
    best: tuple[int, Layout, dict[str, Tensor], Mapping[str, Tensor]] | None = None
    for tensors in _tables(content):
        known = (each for each in LAYOUTS if each.possible(tensors))
        for layout in (*known, *map(_under, _prefixes(tensors, needed))):
            taken = layout.taken(tensors)
            fitting = _fitting(taken, needed)
            if best is None or fitting > best[0]:
                best = (fitting, layout, taken, tensors)
    if best is None or best[0] == 0:
        raise RequestError(_nothing(path, content, needed))
    fitting, layout, taken, tensors = best
    if fitting < len(needed):
        raise RequestError(_misfit(path, layout, taken, needed, fitting))
    if layout not in LAYOUTS:
        _refuse_two(path, tensors, needed)
    own = {k: taken[k] for k in wanted if k in taken}
    return Matched(layout.program, own, _others(layout, tensors, own))


def _fitting(taken: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> int:
    return sum(k in taken and taken[k].shape == v.shape for k, v in needed.items())


def _prefixes(tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> list[str]:
    """Return what stands before the name of the backbone's first tensor, shortest first."""
    first = next(iter(needed))
    return sorted((k.removesuffix(first) for k in tensors if k.endswith(f".{first}")), key=len)


def _under(prefix: str) -> Layout:
    return Layout(f"tensors under the prefix {prefix}", re.escape(prefix))


def _refuse_two(path: Path, tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> None:
    prefixes = _prefixes(tensors, needed)
    found = [p for p in prefixes if _fitting(_under(p).taken(tensors), needed) == len(needed)]
    if len(found) > 1:
        raise RequestError(
            f"{path} holds this backbone {len(found)} times, under {', '.join(found)}: save the "
            "one that is wanted alone."
        )


def _nothing(path: Path, content: Mapping[str, Any], needed: Mapping[str, Tensor]) -> str:
    there = next(_tables(content), {})
    return (
        f"{path} holds no tensor of this backbone under any known name. It holds {_first(there)}; "
        f"wanted are {_first(needed)}. If it is another network's, name that with --backbone."
    )


def _first(names: Collection[str]) -> str:
    if not names:
        return "no tensors"
    rest = len(names) - SHOWN
    return ", ".join(islice(names, SHOWN)) + (f" and {rest} others" if rest > 0 else "")


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
