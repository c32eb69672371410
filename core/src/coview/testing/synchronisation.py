"""Finding operations that make the host wait for the device, on any device."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# The host must read their result, or its size, from the device.
WAITS = frozenset(
    {
        "_local_scalar_dense",  # item, float, int, bool, tolist, a tensor as a condition
        "equal",
        "nonzero",
        "masked_select",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
    }
)


OURS = (__file__, str(Path(__file__).parent / "rehearsal"))
"""Files whose own frames are no place in a method's code."""


class Synchronisations(TorchDispatchMode):
    """Records every operation for which the host would have to wait for a device.

    A step that reads a value back (``if loss > 3``, ``x[mask]``, ``int(count)``)
    leaves the device idle, and cannot be captured as a CUDA graph. On a CPU nothing
    waits, so such code is recognised by its operations::

        with Synchronisations() as seen:
            loss = method(batch, step)
            loss.backward()
        assert not seen.found, seen.found

    Copies from a device to the host are recorded too, if there is a device, and so are
    numbers copied from the host to the device (``new_tensor``, ``torch.tensor`` with a
    device, a list as an index): :func:`coview.nn.constants.constant` keeps such numbers
    on the device.

    Some values are drawn on the host by design (those that an augmentation branches
    on). With ``of``, only what is computed from the given tensors counts::

        Synchronisations(of=[batch.images, *method.parameters(), *method.buffers()])

    Args:
        of: tensors that would be on the device; empty: all tensors.

    Attributes:
        found: a sentence for each operation with its place in the code, in order.
    """

    def __init__(self, of: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        # Weak references do not hold the memory, but prevent reuse of the storages' addresses.
        self._theirs = {StorageWeakRef(tensor.untyped_storage()) for tensor in of}
        self._all = not self._theirs
        self._calls = _Calls(self._note_call)

    def __enter__(self) -> Synchronisations:
        """Start recording."""
        self._calls.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop recording."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._calls.__exit__(*error)  # type: ignore[no-untyped-call]

    def _note_call(self, name: str, tensor: Tensor | None) -> None:
        if self._all or tensor is None or self._is_theirs(tensor):
            self.found.append(f"{name} at {place()}")

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record the operation if it waits, and run it."""
        given = dict(kwargs or {})
        name = func.overloadpacket.__name__
        counts = self._all or any(self._is_theirs(x) for x in tree_leaves((args, given)))
        if counts and waits(name, args, given):
            self.found.append(f"{name} at {place()}")
        result = func(*args, **given)
        if not self._all and (counts or given.get("generator") is not None):
            made = (x for x in tree_leaves(result) if isinstance(x, Tensor))
            self._theirs |= {StorageWeakRef(x.untyped_storage()) for x in made}
        return result

    def _is_theirs(self, value: Any) -> bool:
        return isinstance(value, Tensor) and StorageWeakRef(value.untyped_storage()) in self._theirs


class _Calls(TorchFunctionMode):
    """Sees calls that do not show in the operations dispatched on a CPU.

    These are ``tolist``, and copies of numbers to the device: by ``new_tensor``, by
    ``torch.tensor`` with a device, or by a list as an index.
    """

    def __init__(self, note: Callable[[str, Tensor | None], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record the call if it waits, and make it."""
        given = dict(kwargs or {})
        # Any device counts, as on a CPU it stands for the one used later.
        if (call := copying(func, args, given)) is not None:
            self._note(*call)
        return func(*args, **given)


def copying(
    func: Any, args: Sequence[Any], given: Mapping[str, Any]
) -> tuple[str, Tensor | None] | None:
    """Return a call's name and tensor if it copies numbers from or to a tensor's device.

    There is no tensor where numbers are copied to the device that ``given`` names; None: the
    call copies nothing in this way.
    """
    if func in (Tensor.tolist, Tensor.new_tensor):
        return func.__name__, args[0]
    if func in (torch.tensor, torch.as_tensor) and given.get("device") is not None:
        return func.__name__, None
    if func in (Tensor.__getitem__, Tensor.__setitem__) and _has_list(args[1]):
        return "indexing with a list", args[0]
    return None


def waits(name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Return whether the host needs a value from the device to continue after an operation."""
    special: dict[str, Callable[[], bool]] = {
        "index": lambda: any(_is_mask(index) for index in arguments[1]),
        "index_put": lambda: _spreads(arguments),
        "index_put_": lambda: _spreads(arguments),
        "repeat_interleave": lambda: named.get("output_size") is None,
        "_to_copy": lambda: _to_host(arguments[0], named.get("device")),
        "copy_": lambda: _to_host(arguments[1], arguments[0].device),
    }
    return name in WAITS or (name in special and special[name]())


def place() -> str:
    """Return the place in the code of the running operation, outside torch and this file."""
    libraries = str(Path(torch.__file__).parent)
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((libraries, *OURS, "<frozen")):
            return f"{Path(frame.filename).name}:{frame.lineno} ({frame.line})"
    return "an unknown place"


def _has_list(index: Any) -> bool:
    return any(isinstance(i, list) for i in (index if isinstance(index, tuple) else (index,)))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _spreads(arguments: Sequence[Any]) -> bool:
    """Return whether values are assigned where a mask is true; a single value is only a fill."""
    return arguments[2].numel() > 1 and any(_is_mask(index) for index in arguments[1])


def _to_host(value: Tensor, device: torch.device | None) -> bool:
    return device is not None and device.type == "cpu" and value.device.type != "cpu"
