"""``--observe anomaly``: find what first gave a non-finite value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.errors import CoviewError, RequestError
from coview.hookspecs import ROLE_HOOKS, hookimpl
from coview.records import Step
from coview.training.health import REPORT, advice, not_finite, write_report

Check = tuple[str, Tensor]


class AnomalyObserver:
    """Checks every value of a step, in the order in which it is computed.

    It checks the result of each role, the output of every module in the components,
    every gradient, and after the step every weight and memory. The first non-finite
    value ends the run before the optimiser's update, and the message names it. Results
    of the checks stay on the device until the gradients are ready: a step waits for
    the device twice, and takes some tens of percent longer.

    With fp16, gradients overflow now and then and the scaler skips such steps, so
    gradients are not checked.
    """

    def __init__(self) -> None:
        self._run: Any = None
        self._checks: list[Check] = []

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Watch every module and every gradient."""
        if run.settings.compile == "on":
            raise RequestError("--observe anomaly does not work with --compile: leave one out.")
        self._run = run
        for key, component in run.method.components.items():
            label = run.method.parts[key].label
            for name, module in component.named_modules():
                if name and not list(module.children()):
                    text = f"the output of {key}.{name} ({type(module).__name__}) in {label}"
                    module.register_forward_hook(self._after(text))
            for name, parameter in component.named_parameters():
                if parameter.requires_grad and not run.scaler.is_enabled():
                    text = f"the gradient of {key}.{name} in {label}"
                    parameter.register_post_accumulate_grad_hook(self._gradient(text))

    def _after(self, text: str) -> Callable[..., None]:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            if module.training:
                self._look(text, output)

        return look

    def _gradient(self, text: str) -> Callable[[Tensor], None]:
        def look(parameter: Tensor) -> None:
            self._look(text, parameter.grad)

        return look

    def _look(self, text: str, value: Any) -> None:
        bad = [~tensor.detach().isfinite().all() for tensor in tensors_in(value)]
        if bad:
            self._checks.append((text, torch.stack(bad).any()))

    def _role(self, role: str, value: Any) -> None:
        parts = self._run.method.parts.values()
        labels = [part.label for part in parts if role in part.roles]
        self._look(f"what {' or '.join(labels)} gives ({ROLE_HOOKS[role]})", value)

    @hookimpl(wrapper=True, tryfirst=True)
    def generate_views(self, step: Step) -> Any:
        """Check the views."""
        if step.micro == 0:
            self._checks = []
        result = yield
        self._role("views", result)
        return result

    @hookimpl(wrapper=True, tryfirst=True)
    def encode(self) -> Any:
        """Check the online network's output."""
        result = yield
        self._role("encoder", result)
        return result

    @hookimpl(wrapper=True, tryfirst=True)
    def encode_targets(self) -> Any:
        """Check the targets."""
        result = yield
        self._role("target", result)
        return result

    @hookimpl(wrapper=True, tryfirst=True)
    def draw_negatives(self) -> Any:
        """Check the negatives."""
        result = yield
        self._role("negatives", result)
        return result

    @hookimpl(wrapper=True, tryfirst=True)
    def compute_loss(self) -> Any:
        """Check the loss."""
        result = yield
        self._role("loss", result)
        return result

    @hookimpl(tryfirst=True)
    def gradients_ready(self) -> None:
        """Report the first non-finite value, before the optimiser's update."""
        checks, self._checks = self._checks, []
        if not checks:
            return
        wrong = torch.stack([flag for _, flag in checks]).tolist()
        if any(wrong):
            raise self._error(checks[wrong.index(True)][0])

    @hookimpl(wrapper=True, tryfirst=True)
    def update_target(self) -> Any:
        """Report the first weight or memory that is not finite after the step."""
        result = yield
        names = not_finite(self._run.method.components)
        if names:
            raise self._error(f"after the optimiser's step, {names[0]}")
        return result

    def _error(self, what: str) -> CoviewError:
        run, step = self._run, self._run.step + 1
        write_report(run, step, first=what)
        return CoviewError(
            f"Step {step}: the first value that is not finite is {what}. The images of the batch "
            f"are listed in {run.path / REPORT}. {advice(run, observed=True)}"
        )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a record, however deep."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from tensors_in(getattr(value, field.name))
