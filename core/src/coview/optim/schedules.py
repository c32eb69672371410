"""Learning-rate schedules by name."""

from __future__ import annotations

from typing import ClassVar

import attrs

from coview.plan import Plan
from coview.schedules import half_cosine
from coview.settings import ge, gt, one_of, setting


class LearningRateSchedule:
    """A learning-rate schedule by name (group ``coview.schedules``).

    It is built as ``Class(settings, plan)``.
    """

    Settings: ClassVar[type]

    def rate(self, peak: float, number: int) -> float:
        """Return the learning rate of step ``number`` (from 0), given the peak."""
        raise NotImplementedError


class Cosine(LearningRateSchedule):
    """Linear warm-up, then half a cosine wave down (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    @attrs.frozen
    class Settings:
        """Start, end and pace of the schedule."""

        warmup_epochs: float = setting(0.0, "epochs of linear warm-up, updated every step", ge(0))
        warmup_start: float = setting(0.0, "learning rate at the first step of warm-up", ge(0))
        warmup_count: str = setting(
            "images",
            "steps in an epoch of warm-up: images / batch size (images: SimCLR, BYOL), or the "
            "steps of an epoch, without its last incomplete batch (steps: SwAV, DINO, MoCo v3)",
            one_of("images", "steps"),
        )
        warmup_closed: bool = setting(
            False,
            "reach the peak at the last step of warm-up (SwAV, DINO), not at the one after it",
        )
        final: float = setting(0.0, "learning rate at the end of the cosine", ge(0))
        per: str = setting(
            "step", "update the cosine at every step or every epoch", one_of("step", "epoch")
        )
        first_epoch: int = setting(0, "number of the first epoch, if per = epoch", ge(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings = settings
        self.plan = plan
        images = plan.dataset_size or plan.steps_per_epoch * plan.batch_size
        by_images = settings.warmup_count == "images"
        an_epoch = images / plan.batch_size if by_images else plan.steps_per_epoch
        self.warmup = int(settings.warmup_epochs * an_epoch)

    def rate(self, peak: float, number: int) -> float:
        """Return the learning rate of step ``number`` (from 0), given the peak."""
        settings, plan = self.settings, self.plan
        if number < self.warmup:
            parts = max(self.warmup - settings.warmup_closed, 1)
            return settings.warmup_start + (peak - settings.warmup_start) * number / parts
        if settings.per == "epoch":
            done = number // plan.steps_per_epoch + settings.first_epoch
            whole = -(-plan.total_steps // plan.steps_per_epoch)
        else:
            done = number - self.warmup
            whole = plan.total_steps - self.warmup
        wave = half_cosine(min(done / max(whole, 1), 1.0))
        return settings.final + (peak - settings.final) * wave


class Steps(LearningRateSchedule):
    """Multiply the learning rate by a factor at fixed epochs."""

    @attrs.frozen
    class Settings:
        """When the learning rate drops, and by how much."""

        milestones: tuple[int, ...] = setting(
            (120, 160), "epochs (from 0) at which the learning rate drops"
        )
        gamma: float = setting(0.1, "factor of the learning rate at each drop", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings = settings
        self.plan = plan

    def rate(self, peak: float, number: int) -> float:
        """Return the learning rate of step ``number`` (from 0), given the peak."""
        epoch = number // self.plan.steps_per_epoch
        dropped = sum(epoch >= milestone for milestone in self.settings.milestones)
        return peak * self.settings.gamma**dropped


class Constant(LearningRateSchedule):
    """One learning rate throughout."""

    @attrs.frozen
    class Settings:
        """No settings."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        pass

    def rate(self, peak: float, number: int) -> float:
        """Return the peak."""
        return peak
