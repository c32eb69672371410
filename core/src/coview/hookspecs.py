"""The contract: the hooks that a training step calls, in the order it calls them.

Every run has its own plugin manager. Five roles answer the first five hooks.
A component is registered for the hooks of the roles that the recipe gives it,
and for the two open hooks (``gradients_ready``, ``update_target``) and the hooks of a
run's life, which any component may implement. An implementation names only the
arguments it needs.

A role may be filled several times where that has a meaning: negatives (the loss gets a
part from each source), losses (their weighted sum) and views (each step draws one by
weight). Wrappers (a recipe's ``wrap``) implement hooks with ``hookimpl(wrapper=True)`` and
see what goes into a role and what comes out of it, without replacing the component.

Order is part of the contract. A queue or bank is read (``draw_negatives``)
before it is written (``update_target``), and written once per optimiser step,
so that a positive is never its own negative.

One step, as the engine runs it and as your own loop may::

    loss = method(batch, step)      # generate_views ... compute_loss
    loss.backward()
    method.gradients_ready(step)
    optimizer.step()
    method.update_target(step)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from coview.records import Batch, Encoded, Negatives, Step, Targets, Views

PROJECT = "coview"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

VERSION = 1
"""The version of this contract. A component may say what it was written for (``contract``)."""

RENAMED: dict[str, str] = {}
"""Hooks and arguments of earlier versions, with their names in this one."""

ROLES = ("views", "encoder", "target", "negatives", "loss")
"""The five roles, in the order in which components are built."""

ROLE_HOOKS = {
    "views": "generate_views",
    "encoder": "encode",
    "target": "encode_targets",
    "negatives": "draw_negatives",
    "loss": "compute_loss",
}
OPEN_HOOKS = ("gradients_ready", "update_target")
SEVERAL = ("views", "negatives", "loss")
"""Roles that several components may fill."""
WEIGHED = ("views", "loss")
"""Those of them whose components have a weight each."""


class StepHooks:
    """Hooks that a training step calls."""

    @hookspec(firstresult=True)
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Role ``views``: make the views of a batch.

        Called without gradient. The component also has an attribute ``layout``
        (:class:`coview.Layout`) and a method ``evaluation_views(images) -> Views``:
        the same normalisation and layout without randomness, for images that are
        uint8 or float in [0, 1] (:func:`coview.views.unit_interval`). If these are
        only the standardised centre of the image, set ``normalization`` (mean and
        standard deviation of each channel); the exported backbone then needs no
        views component. Otherwise it gets all crops of ``evaluation_views``.

        Args:
            batch: images (B, C, H, W) uint8 and their indices (B,).
            step: its generator is the only source of randomness.

        Returns:
            Views: crops (B, C, h, w) float, which network encodes which of
            them, and which are positives of each other.

        Example::

            @hookimpl
            def generate_views(self, batch, step):
                images = batch.images.float() / 255
                noise = torch.randn(images.shape, generator=step.generator)
                return Views((images, images + noise), (0, 1), (0, 1), ((0, 1), (1, 0)))
        """

    @hookspec(firstresult=True)
    def encode(self, views: Views, batch: Batch, step: Step) -> Encoded:
        """Role ``encoder``: run the online network on ``views.queries``.

        The component also has ``dim`` (the width of what is compared), ``project``,
        ``predict``, ``backbone()`` and ``without_predictor()``; a subclass of
        :class:`coview.nn.encoder.Encoder` has all of them.

        Returns:
            Encoded: vectors to compare (N, d) by slot, features (B, D) by view.

        Example::

            @hookimpl
            def encode(self, views, batch):
                features = {v: self.trunk(views.crops[v]) for v in views.queries}
                z = {v: self.head(f) for v, f in features.items()}
                own = {v: batch.indices for v in z}
                return Encoded(z, z, own, views.pairs, features)
        """

    @hookspec(firstresult=True)
    def encode_targets(
        self, encoder: nn.Module, views: Views, encoded: Encoded, batch: Batch, step: Step
    ) -> Targets:
        """Role ``target``: give the keys that queries are compared with.

        Args:
            encoder: the online encoder. Do not store it: it would be saved twice.
            encoded: its output for the query views of this step.

        Returns:
            Targets: keys (N, d) and their identities (N,), by slot.

        Example::

            @hookimpl
            def encode_targets(self, encoded):
                keys = {s: z.detach() for s, z in encoded.projections.items()}
                return Targets(keys, encoded.identities)
        """

    @hookspec
    def draw_negatives(
        self, views: Views, encoded: Encoded, targets: Targets, batch: Batch, step: Step
    ) -> Negatives:
        """Role ``negatives``: give what the queries must differ from.

        Every source is called, in the recipe's order; the loss gets a tuple of their
        parts, neither copied nor joined, and empty if no source gives any. A memory
        may return its own buffer: it is written only after backward.

        A wrapper's ``yield`` gives the list of all parts, in that order and without the
        sources that gave none; the wrapper returns such a list. A wrapper (or source) whose
        negatives depend on the query gives them by pair (``by_pair``), as several queries
        may have one key.

        Returns:
            Negatives: vectors (K, d) or (N, K, d), by key slot.

        Example::

            @hookimpl
            def draw_negatives(self, targets):
                return Negatives(targets.keys, targets.identities)
        """

    @hookspec(firstresult=True)
    def compute_loss(
        self,
        encoder: nn.Module,
        views: Views,
        encoded: Encoded,
        targets: Targets,
        negatives: tuple[Negatives, ...],
        batch: Batch,
        step: Step,
    ) -> Tensor:
        """Role ``loss``: compare queries with keys and negatives.

        A loss that makes assignments (to prototypes, for example) also calls
        :func:`coview.losses.assignments.log_assignments`, which lets coview detect collapse.

        Args:
            encoder: the online encoder, for a loss that applies the current
                predictor or prototypes (``encoder.predict``) to what it is
                given. Do not store it: it would be saved twice.
            negatives: one part for each source that gave any.
            batch: for a loss that asked for a field of it (``needs_fields``).

        Returns:
            Tensor: a scalar, the mean over this process's rows; gradient flows.

        Example::

            @hookimpl
            def compute_loss(self, encoded, targets):
                terms = [mse_loss(encoded.queries[q], targets.keys[k]) for q, k in encoded.pairs]
                return torch.stack(terms).mean()
        """

    @hookspec
    def gradients_ready(self, step: Step) -> None:
        """Open to every component: after backward and unscaling, before the optimiser's step.

        Use it to freeze a layer (set its gradients to None) or to clip tensors one by one.

        Example::

            @hookimpl
            def gradients_ready(self, step):
                if step.epoch < 1:
                    self.prototypes.weight.grad = None
        """

    @hookspec
    def update_target(
        self,
        encoder: nn.Module,
        views: Views,
        encoded: Encoded,
        targets: Targets,
        batch: Batch,
        step: Step,
    ) -> None:
        """Open to every component: after the optimiser's step, without gradient.

        The records are detached; accumulated micro-batches are joined by rows. Here
        a momentum encoder moves its weights, a queue stores the step's keys and a
        bank its features.

        Example::

            @hookimpl
            def update_target(self, encoder):
                for mine, theirs in zip(self.network.parameters(), encoder.parameters()):
                    mine.lerp_(theirs, 0.004)
        """


class LifeHooks:
    """Hooks for observers, from start to end. ``run`` is a :class:`coview.training.run.Run`."""

    @hookspec
    def evaluation_started(self, run: Any, what: str) -> None:
        """An evaluation begins, which may take a while; ``what`` says for people what it is.

        The first one, of the untrained network, comes before ``run_started``.
        """

    @hookspec
    def run_started(self, run: Any) -> None:
        """Everything is built, and the first step (of the run or since a resume) comes next."""

    @hookspec
    def step_finished(self, run: Any, step: Step, loss: Tensor) -> None:
        """A step is done; ``loss`` is a 0-dim tensor on the device: reading it synchronises."""

    @hookspec
    def epoch_finished(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch is done (counted from 0); ``metrics`` are its means, on the host already."""

    @hookspec
    def checkpoint_saved(self, run: Any, path: Path) -> None:
        """A checkpoint has been written completely."""

    @hookspec
    def run_finished(self, run: Any) -> None:
        """Training is over and the weights are exported."""


HOOK_NAMES = frozenset(
    name
    for group in (StepHooks, LifeHooks)
    for name, member in vars(group).items()
    if hasattr(member, f"{PROJECT}_spec")
)
"""All hooks; an implementation with any other name is refused."""

LIFE_HOOKS = tuple(name for name in vars(LifeHooks) if name in HOOK_NAMES)
"""The hooks of a run's life, which observers and components may implement."""
