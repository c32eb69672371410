"""A CUDA device that is not there: tensors with a device, a shape and a type, but no numbers.

torch computes which device, shape and type a result would have (``FakeTensorMode``), and
refuses what a device would refuse. What it would only do slowly is refused here: waiting for
the device, copies from ordinary memory, float64.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coview.nn import constants
from coview.testing.errors import ConformanceError
from coview.testing.rehearsal.backward import Saved, run_backward
from coview.testing.rehearsal.memory import Memory
from coview.testing.synchronisation import copying, place, waits

SMALL = 2**16
"""Numbers up to which a tensor on the CPU is a real one, whose values can be read."""
SCALER, KORNIA = "grad_scaler.py", f"{os.sep}kornia{os.sep}"
"""torch's loss scaling reads whether a gradient overflowed; kornia draws on the host."""
FEW = 4096
"""Numbers up to which float64 is allowed: sums over rows, and values of schedules."""
REAL = torch.Generator


class _Generator(REAL):
    """A generator that says it is on the device; no numbers are drawn there."""

    where: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        made = REAL.__new__(cls, device="cpu")  # type: ignore[call-arg]
        made.where = torch.empty(0, device=device).device
        return made

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Take the place of torch's, with its argument."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it was asked to be."""
        return self.where


class Pretended(TorchDispatchMode):
    """Refuses what a CUDA device would do badly; makes small tensors of the CPU for real.

    Attributes:
        reading: values may be read from the device here, as in an evaluation.
        copying: numbers may be copied to the device here, as before the first step.
        operations: how many operations the device was given.
        memory: what the device's tensors take.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = fake
        self.reading = self.copying = False
        self.operations = 0
        self.memory = Memory()
        self._pinned: set[StorageWeakRef] = set()

    def pinned(self, tensor: Tensor) -> Tensor:
        """Return a copy that counts as pinned, so that it may be sent without waiting."""
        tensor = tensor.clone()
        self._pinned.add(StorageWeakRef(tensor.untyped_storage()))
        return tensor

    @contextmanager
    def allowing(self, *, reading: bool = False, copying: bool = False) -> Iterator[None]:
        """Allow more within the context."""
        before = self.reading, self.copying
        self.reading, self.copying = self.reading or reading, self.copying or copying
        try:
            yield
        finally:
            self.reading, self.copying = before

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Check an operation, and pretend to run it."""
        if func is torch.ops.prim.device.default:
            return func(*args)
        given = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, given)) if isinstance(x, Tensor)]
        if _on_host(tensors, args, given):
            with unset_fake_temporarily():
                return func(*args, **given)
        name = func.overloadpacket.__name__
        if any(x.is_cuda for x in tensors):
            self.operations += 1
            if answer := self._refuse_waiting(name, args, given):
                return answer[0]
            if name.startswith("_fused_"):  # an optimiser's step, in place
                return _refuse_mixture(name, tensors)
        elif name == "_local_scalar_dense":  # of the CPU, but too large to be real
            return 0.0 if args[0].is_floating_point() else 0
        self._refuse_copy(name, args, given)
        result = func(*args, **given)
        self._refuse_double(name, result)
        self.memory.count(result)
        return result

    def _refuse_waiting(self, name: str, args: Sequence[Any], given: Mapping[str, Any]) -> Any:
        """Refuse to read a value; return (value,) where torch's own loss scaling reads one."""
        if not waits(name, args, given):
            return ()
        if name == "_local_scalar_dense" and _called_by(SCALER):
            return (0.0,)
        if not self.reading:
            raise ConformanceError(f"the host would wait for the device: {name} at {place()}")
        return ()

    def _refuse_copy(self, name: str, args: Sequence[Any], given: Mapping[str, Any]) -> None:
        if self.copying or name not in ("_to_copy", "copy_") or _called_by(KORNIA):
            return
        source = args[0] if name == "_to_copy" else args[1]
        device = given.get("device") if name == "_to_copy" else args[0].device
        to_device = device is not None and torch.device(device).type == "cuda"
        if not isinstance(source, Tensor) or source.is_cuda or not to_device:
            return
        pinned = StorageWeakRef(source.untyped_storage()) in self._pinned
        if not (pinned and (given.get("non_blocking") or args[-1] is True)):
            raise ConformanceError(
                "numbers would be copied from the host's ordinary memory to the device, for which "
                f"the host waits: {name} at {place()}. coview.nn.constants.constant copies once"
            )

    def _refuse_double(self, name: str, result: Any) -> None:
        for made in tree_leaves(result):
            double = isinstance(made, Tensor) and made.dtype == torch.float64
            if double and made.is_cuda and made.numel() > FEW:
                raise ConformanceError(
                    f"{made.numel()} numbers in float64 on the device, where it is up to 64 times "
                    f"slower than float32: {name} at {place()}"
                )


def _on_host(tensors: Sequence[Tensor], args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Return whether an operation is of small real tensors of the CPU alone."""
    if any(isinstance(x, FakeTensor) for x in tensors):
        return False
    device = given.get("device")
    if device is not None and torch.device(device).type != "cpu":
        return False
    if tensors or not args or not isinstance(args[0], (list, tuple)):
        return True
    return math.prod(args[0]) <= SMALL


def _refuse_mixture(name: str, tensors: Sequence[Tensor]) -> None:
    """Refuse tensors of several devices, as torch does where it pretends an operation itself."""
    if found := [x for x in tensors if not x.is_cuda]:
        raise ConformanceError(
            f"{name} is given tensors of the device and of the {found[0].device.type}, at {place()}"
        )


def _called_by(part: str) -> bool:
    """Return whether a file whose path has this part is among the callers."""
    frame = sys._getframe()
    while frame is not None:
        if part in frame.f_code.co_filename:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def recurrent(
    x: Tensor, hidden: Any, weights: Sequence[Tensor], _bias: bool, layers: int, *_: Any
) -> tuple[Tensor, Tensor]:
    """Stand in for GRU and LSTM, whose kernels have no pretended form.

    Shapes and edges are theirs, and what is kept for the backward pass is a GRU's: products,
    gates and states of all steps.
    """
    state = hidden[0] if isinstance(hidden, (tuple, list)) else hidden
    each = len(weights) // layers
    for layer in range(layers):
        x = _gated(x, state.shape[-1], weights[layer * each : (layer + 1) * each])
    return x, state + x[:, -1].sum()


def _gated(x: Tensor, width: int, weights: Sequence[Tensor]) -> Tensor:
    """Return the output of a gated layer for all steps at once, as if none needed the last."""
    given = x @ weights[0].mT
    for bias in weights[2:]:
        given = given + bias
    before = given[..., :width]
    again = before @ weights[1].mT
    gates = torch.sigmoid(given + again)
    new = torch.tanh(given[..., -width:] + gates[..., :width] * again[..., -width:])
    return new + gates[..., width : 2 * width] * (before - new)


class _Applied:
    """``Module._apply`` (``to``, ``half``, ...), which in torch cannot change fake tensors."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Tensor, Tensor]] = {}
        self.depth = 0

    def __call__(self, module: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
        """Replace parameters and buffers; those that modules share stay shared."""
        self.depth += 1
        try:
            for child in module.children() if recurse else ():
                child._apply(function)
            for name, parameter in module._parameters.items():
                module._parameters[name] = self._new(parameter, function)  # type: ignore[assignment]
            for name, buffer in module._buffers.items():
                module._buffers[name] = self._new(buffer, function)
        finally:
            self.depth -= 1
            if not self.depth:
                self.made = {}
        return module

    def _new(self, old: Tensor | None, function: Any) -> Tensor | None:
        if old is None:
            return None
        if id(old) not in self.made:
            new = function(old.detach())
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, old.requires_grad)
            self.made[id(old)] = old, new
        return self.made[id(old)][1]


@contextmanager
def pretended_cuda() -> Iterator[Pretended]:
    """Within the context there seems to be a CUDA device; tensors made there hold no numbers."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    mode = Pretended(fake)
    calls, applied = _Calls(mode), _Applied()
    # Constants of this device must not be found by a later run on a real one.
    plain = functools.lru_cache(maxsize=1024)(constants._kept.__wrapped__)

    def kept(*key: Any) -> Tensor:
        with mode.allowing(copying=True):
            made: Tensor = plain(*key)
        return made

    with ExitStack() as stack:
        for owner, name, value in (
            (torch, "Generator", _Generator),
            (torch.autograd, "_engine_run_backward", run_backward),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
            (constants, "_kept", kept),
            (Tensor, "pin_memory", lambda tensor: mode.pinned(tensor)),
            (torch._VF, "gru", recurrent),
            (torch._VF, "lstm", recurrent),
            (nn.Module, "_apply", lambda module, *given, **more: applied(module, *given, **more)),
        ):
            stack.enter_context(patch.object(owner, name, value))
        # torch warns when it copies a tensor that has no memory; cuDNN asks the driver.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        saving = saved_tensors_hooks(Saved, Saved.read)
        for entered in (fake, mode, calls, saving):
            stack.enter_context(entered)
        yield mode


class _Calls(TorchFunctionMode):
    """Refuses calls that copy numbers to the device or back before torch knows of a device."""

    def __init__(self, mode: Pretended) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuse the call, or make it."""
        given = dict(kwargs or {})
        mode = self.mode
        if not mode.copying and not mode.reading and self._waits(func, args, given):
            raise ConformanceError(
                f"the host would wait for the device: {func.__name__} at {place()}"
            )
        if isinstance(generator := given.get("generator"), _Generator):
            here, there = _device_of(args, given).type, generator.device.type
            if here != there:
                raise ConformanceError(
                    f"a generator of the {there} draws for the {here}, which torch refuses: "
                    f"{func.__name__} at {place()}. step.generator is on the device"
                )
        return func(*args, **given)

    def _waits(self, func: Any, args: Sequence[Any], given: Mapping[str, Any]) -> bool:
        call = copying(func, args, given)
        if call is None:
            return False
        tensor = call[1]
        return torch.device(given["device"]).type == "cuda" if tensor is None else tensor.is_cuda


def _device_of(args: Sequence[Any], given: Mapping[str, Any]) -> torch.device:
    """Return the device of what a call makes, or writes to."""
    if given.get("device") is not None:
        return torch.device(given["device"])
    own = args[0] if args else None
    return own.device if isinstance(own, Tensor) else torch.device("cpu")
