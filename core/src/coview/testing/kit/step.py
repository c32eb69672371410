"""Promises on a training step."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.method.joining import share
from coview.records import Batch
from coview.testing.errors import ConformanceError, demand
from coview.testing.evidence import different, told
from coview.testing.subject import Built, Subject
from coview.testing.synchronisation import Synchronisations


def builds(subject: Subject) -> str:
    """The components fit their hooks and each other, and the same seed builds the same weights."""
    first, second = subject.build(), subject.build()
    found = next(different(first.state(), second.state()), None)
    demand(
        found is None,
        "two builds from the same seed differ: use torch's generator when building",
        lambda: told(found, "the first build", "the second"),
    )
    parameters = sum(p.numel() for p in first.method.parameters())
    return f"{parameters / 1e6:.2f} M parameters here"


def gives_a_loss_with_gradient(subject: Subject) -> None:
    """The loss is one finite number; its gradient reaches all of the online network, nothing else.

    A parameter without gradient stops DistributedDataParallel; a target's parameter
    with a gradient would be trained.
    """
    built = subject.build()
    loss = built.loss(subject.batch(0), subject.step(0))
    demand(loss.shape == (), f"the loss has shape {tuple(loss.shape)}; it must be a scalar")
    built.backward(loss, subject.step(0))
    for key, component in built.method.components.items():
        for name, parameter in component.named_parameters():
            gradient, where = parameter.grad, f"{key}.{name}"
            if key == "encoder" and parameter.requires_grad:
                demand(gradient is not None, f"no gradient reaches {where}")
            if key == "target" and gradient is not None:
                raise ConformanceError(f"a gradient reaches {where}, which belongs to the target")
    norms = [float(p.grad.norm()) for p in built.method.parameters() if p.grad is not None]
    demand(any(norm > 0 for norm in norms), "the gradient is zero everywhere")


def descends(subject: Subject) -> None:
    """A small step against the gradient lowers the loss, all else being equal."""
    built = subject.build(double=True)
    batch = subject.batch(0)
    before = built.loss(batch, subject.step(0))
    built.backward(before, subject.step(0))
    trained = [p for p in built.method.parameters() if p.grad is not None]
    gradients = [p.grad.clone() for p in trained if p.grad is not None]
    squares = sum(float(g.square().sum()) for g in gradients)
    start = {k: v.clone() for k, v in built.method.state_dict().items()}
    for length in (1e-2, 1e-3, 1e-4):
        built.method.load_state_dict(start)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.sub_(gradient, alpha=length / squares**0.5)
            after = built.method(batch, subject.step(0))
        if after < before:
            return
    raise ConformanceError(
        f"a small step against the gradient does not lower the loss: it goes from "
        f"{float(before.detach()):.9g} to {float(after):.9g}"
    )


def draws_from_the_step_alone(subject: Subject) -> None:
    """A step's randomness comes only from the step's generator.

    torch's global generator has no influence and is left unchanged, and so is the
    batch: a resumed run, and several processes, then draw what one run would.
    """
    results = []
    for seed in (1, 2):
        built = subject.build()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before, images = torch.get_rng_state(), subject.batch(0).images
            subject.train(built, 0, 2)
            used = not torch.equal(before, torch.get_rng_state())
        demand(not used, "a step draws from torch's global generator: use step.generator")
        demand(torch.equal(images, subject.batch(0).images), "the batch's images were changed")
        results.append({"loss": built.losses, **built.state()})
    found = next(different(results[0], results[1]), None)
    demand(
        found is None,
        "a step's result depends on torch's global generator",
        lambda: told(found, "with one seed of it", "with another"),
    )


def sees_no_labels(subject: Subject) -> None:
    """Components read a batch's images, indices and the fields that they ask for, and nothing else.

    A field is asked for with ``needs_fields``, which `coview show` tells; so labels never
    reach a method that is said to do without.
    """
    built, asked = subject.build(), []

    class Sealed(Batch):
        def __getattr__(self, name: str) -> object:
            if not name.startswith("__"):
                asked.append(name)
            raise AttributeError(name)

    class Asked(dict[str, object]):
        def __missing__(self, name: str) -> object:
            raise ConformanceError(f"a component reads the field {name!r}: list it in needs_fields")

    plain = subject.batch(0)
    step = subject.step(0)
    built.method(Sealed(plain.images, plain.indices, Asked(plain.fields)), step).backward()
    built.method.update_target(step)
    demand(not asked, f"a component reads the batch's {', '.join(sorted(set(asked)))}")


def reads_memory_before_writing(subject: Subject) -> None:
    """Negatives come from past steps only, so a positive is never its own negative.

    Queues and banks change only in ``update_target``, once, after the optimiser's step.
    """
    built = subject.train(subject.build(), 0, 1)
    sources = {c.key for c in built.method.parts.values() if "negatives" in c.roles}

    def memory() -> dict[str, Tensor]:
        names = tuple(f"components.{key}." for key in sources)
        return {k: v for k, v in built.state().items() if k.startswith(names)}

    before = memory()
    built.method(subject.batch(1), subject.step(1)).backward()
    changed = list(different(before, memory()))
    demand(
        not changed,
        f"{', '.join(key for key, _, _ in changed)} changed before update_target",
        lambda: told(changed[0], "before the forward pass", "after it"),
    )


def never_waits_for_the_device(subject: Subject) -> None:
    """A step reads no value back from the device, so a GPU never has to wait."""
    built = subject.train(subject.build(), 0, 1)
    batch, step = subject.batch(1), subject.step(1)
    method = built.method
    on_device = [batch.images, batch.indices, *method.parameters(), *method.buffers()]
    on_device += [values for values in batch.fields.values() if isinstance(values, Tensor)]
    with Synchronisations(of=on_device) as seen:
        built.method(batch, step).backward()
        built.method.gradients_ready(step)
        built.method.update_target(step)
    found = list(dict.fromkeys(seen.found))
    demand(not found, f"the host would wait for the device: {'; '.join(found[:3])}")


def takes_other_channels(subject: Subject) -> str | None:
    """Images of one channel work too, or are refused with a clear message."""
    grey = attrs.evolve(subject, channels=1)
    try:
        built = grey.build()
    except RequestError as error:
        return f"refuses one channel: {error.problems[0]}"
    grey.train(built, 0, 1)
    return None


class Recorder:
    """An observer that records what ``update_target`` is given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, int]] = []

    @hookimpl
    def update_target(self, batch: Batch, encoded: object) -> None:
        """Record the indices and the number of rows of the first slot."""
        rows = next(iter(encoded.queries.values()))  # type: ignore[attr-defined]
        self.calls.append((batch.indices, len(rows)))


def forward_in_parts(subject: Subject, built: Built, parts: int) -> Recorder:
    """Do one optimiser step in micro-batches; return a record of what ``update_target`` got."""
    recorder = Recorder()
    built.method.observe(recorder, "recorder")
    batch, step = subject.batch(0), subject.step(0)
    for micro in range(parts):
        within = attrs.evolve(step, micro=micro, generators={})
        loss = built.loss(share(batch, micro, parts), within) / parts
        built.backward(loss, within)
        built.losses.append(float(loss.detach()))
    built.update(step)
    return recorder
