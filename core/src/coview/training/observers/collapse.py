"""``--observe collapse``, on by default: whether embeddings still tell images apart.

The projections and keys are measured every few steps, on their device; between
readings nothing is computed, stored or waited for. Nothing is gathered: each
process measures its own rows, and the mean over processes is logged and judged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.distributed import is_first, mean_over_processes
from coview.errors import CoviewError, RequestError, unknown
from coview.hookspecs import hookimpl
from coview.losses.assignments import INFORMATION
from coview.records import Encoded, Step, Targets
from coview.settings import ge, gt, one_of, setting
from coview.training.observers.base import parse
from coview.training.observers.collapse_measures import (
    alignment,
    deviation,
    effective_rank,
    uniformity,
)
from coview.training.observers.collapse_signs import SIGNS, Reading, at_the_end, sentence

NAME = "collapse"
ACTIONS = ("warn", "stop", "ignore")
PREFIX = "collapse/"


class CollapseObserver:
    """Measures embeddings now and then, and reports once if they have collapsed.

    A sign must show at every reading for ``patience`` steps, or for one per cent of
    the run's steps if that is more: untrained heads spread little, and healthy runs
    dip early on (docs/collapse.md lists the measurements). What the last step showed is
    kept in ``end``, however short the run, and told with its result (:meth:`ended`).
    """

    @attrs.frozen
    class Settings:
        """The bounds are calibrated in benchmarks/collapse.py."""

        every: int = setting(25, "steps between readings", gt(0))
        rows: int = setting(256, "rows measured per reading and process", ge(2))
        patience: int = setting(50, "steps for which a sign must last", ge(0))
        std: float = setting(0.1, "collapse/std below this is a sign", ge(0))
        rank: float = setting(2.0, "collapse/effective_rank below this is a sign", ge(0))
        information: float = setting(
            0.001,
            "assignment_information below this is a sign; where it exists, std and rank are not",
            ge(0),
        )
        action: str = setting("warn", "what to do: warn, or stop the run", one_of(*ACTIONS[:2]))

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._measured: dict[str, Tensor] = {}
        self._since: dict[str, int] = {}
        self._said: list[str] = []
        self._started = self._last = 0
        self.end: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the step since which each sign has shown, and the signs already reported."""
        return {"since": dict(self._since), "said": list(self._said)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._since, self._said = dict(state["since"]), list(state["said"])

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Remember the step at which the run was started or resumed, and its last one."""
        self._started, self._last = run.step, run.last_step

    @hookimpl(tryfirst=True)
    def update_target(self, encoded: Encoded, targets: Targets, step: Step) -> None:
        """Measure, in every ``every``-th step and the last, without waiting for the device."""
        done = step.number + 1
        if done % self.settings.every == 0 or done == self._last:
            self._measured = measured(encoded, targets, self.settings.rows)

    @hookimpl
    def step_finished(self, run: Any) -> None:
        """Log a new reading and judge it."""
        if not self._measured:
            return
        names, values = zip(*self._measured.items(), strict=True)
        self._measured = {}
        means = mean_over_processes(torch.stack(values).float()).tolist()
        read = dict(zip(names, means, strict=True))
        if run.step == self._last:
            self.end = read
            if run.step % self.settings.every:
                return  # not logged: a run that is stopped and resumed logs what a whole one does
        run.log(**{f"{PREFIX}{name}": round(value, 6) for name, value in read.items()})
        self._judge(run, read)

    def _judge(self, run: Any, read: dict[str, float]) -> None:
        """Count how long each sign has shown, and report it once that is long enough."""
        reading = self._reading(run, read)
        if reading is None:
            return
        shown = self._shown(reading)
        patience = max(self.settings.patience, run.plan.total_steps // 100)
        for name in SIGNS:
            if name not in shown:
                self._since.pop(name, None)
                continue
            since = self._since.setdefault(name, run.step)
            if run.step - since >= patience and name not in self._said:
                self._say(run, name, sentence(run, name, reading, since))

    def ended(self, run: Any) -> str | None:
        """Return a sentence if a run's last step showed a sign, however few there were."""
        reading = self._reading(run, self.end) if self.end else None
        shown = [] if reading is None else self._shown(reading)
        if reading is None or not shown:
            return None
        return at_the_end(run, shown[0], reading, run.step - self._started < self.settings.patience)

    def _shown(self, reading: Reading) -> list[str]:
        bounds = attrs.asdict(self.settings)
        return [name for name, sign in SIGNS.items() if sign.shows(reading, bounds[name])]

    def _reading(self, run: Any, read: Mapping[str, float]) -> Reading | None:
        """Return the measures with what the loss logged, once this sitting has logged."""
        logged = self._logged(run)
        if logged is None:
            return None
        return Reading(read, logged.get(INFORMATION), logged.get("assignment_mean_entropy"))

    def _logged(self, run: Any) -> dict[str, Any] | None:
        """Return the metrics logged last since the start or resume, equal on all processes."""
        rows = (row for row in reversed(run.metrics) if "loss" in row)
        last = next(rows, None)
        return last if last is not None and last["step"] > self._started else None

    def _say(self, run: Any, name: str, text: str) -> None:
        self._said.append(name)
        run.log(collapse=name, warning=text)
        if self.settings.action == "stop":
            from coview.training.loop import save

            save(run)
            raise CoviewError(
                f"{text} The run was stopped (--on-collapse stop); its weights are saved in "
                f"{run.path / 'checkpoints' / 'last.pt'}."
            )
        if is_first():
            sys.stderr.write(f"warning: {text}\n")


def watched(asked: Iterable[Any], action: str | None, fresh: bool) -> list[Any]:
    """Add this observer to the requested ones, or remove it.

    Args:
        asked: as for :func:`coview.training.observers.base.watchers`.
        action: ``warn``, ``stop``, ``ignore``, or None: as in ``asked``, and for a
            new run ``warn``.
        fresh: True for a new run; a resumed run keeps its own observers.

    Raises:
        RequestError: the action is unknown.
    """
    if action is not None and action not in ACTIONS:
        raise RequestError(unknown("action on collapse", action, ACTIONS))
    asked = list(asked)
    mine = [item for item in asked if _is_this(item)]
    others = [item for item in asked if not _is_this(item)]
    if action == "ignore" or not (mine or fresh or action):
        return others
    text = mine[-1] if mine else NAME
    if action is not None and (mine or action != "warn"):
        name, values = parse(text)
        listed = ",".join(f"{key}={value}" for key, value in {**values, "action": action}.items())
        text = f"{name}:{listed}"
    return [text, *others]


def _is_this(item: Any) -> bool:
    try:
        return isinstance(item, str) and parse(item)[0].rpartition(":")[2] == NAME
    except RequestError:
        return False  # building the observer will report what is wrong


def measured(encoded: Encoded, targets: Targets, most: int) -> dict[str, Tensor]:
    """Return the measures of a step's first pair of slots, each 0-dim on the device.

    If both slots have projections, the worse value counts, since each view may have
    its own network and only one may have collapsed.

    Args:
        encoded: detached, as ``update_target`` gets it.
        targets: likewise.
        most: largest number of rows to measure.
    """
    query, key = encoded.pairs[0]
    slots = [slot for slot in dict.fromkeys((query, key)) if slot in encoded.projections]
    rows = {slot: _some(encoded.projections[slot], most) for slot in slots}
    found = {
        "std": torch.stack([deviation(x) for x in rows.values()]).amin(),
        "effective_rank": torch.stack([effective_rank(x).float() for x in rows.values()]).amin(),
        "uniformity": torch.stack([uniformity(x) for x in rows.values()]).amax(),
    }
    # If a slot is compared with itself, only the prediction differs from the key.
    one = encoded.queries[query] if query == key else encoded.projections[query]
    other = targets.keys[key]
    if one.shape == other.shape:
        found["alignment"] = alignment(_some(one, most), _some(other, most))
    return found


def _some(rows: Tensor, most: int) -> Tensor:
    """Return at most ``most`` rows, evenly spaced, as neighbours may show the same image."""
    return rows[:: -(-len(rows) // most)]
