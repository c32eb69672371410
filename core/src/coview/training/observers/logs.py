"""Observers for CSV, TensorBoard and Weights & Biases; the last two need optional packages."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from coview.distributed import is_first
from coview.errors import RequestError
from coview.files import replacing
from coview.hookspecs import hookimpl
from coview.recipes.recipe import to_document
from coview.settings import one_of, setting

Entry = dict[str, Any]


def flat(entry: Mapping[str, Any], prefix: str = "") -> Entry:
    """Return an entry of ``metrics.jsonl`` with nested names joined.

    >>> flat({"step": 3, "knn": {"top1": 0.5, "k": 20}})
    {'step': 3, 'knn.top1': 0.5, 'knn.k': 20}
    """
    found: Entry = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


class Logger:
    """Base class: passes on each entry of ``run.metrics`` once, on the first process.

    A resumed run's metrics are cut back to the checkpoint's step; :meth:`begin`
    returns how many of them need not be passed on again.
    """

    def __init__(self) -> None:
        self._passed = 0

    def begin(self, run: Any) -> int:
        """Open the output; return how many of the present entries it already has."""
        raise NotImplementedError

    def write(self, run: Any, entries: list[Entry]) -> None:
        """Write flat entries."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the output; called once, however the run ends."""

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Open the output and pass on the entries it lacks."""
        if is_first():
            self._passed = self.begin(run)
            self._pass_on(run)

    @hookimpl
    def step_finished(self, run: Any) -> None:
        """Pass on what was logged."""
        self._pass_on(run)

    @hookimpl
    def epoch_finished(self, run: Any) -> None:
        """Pass on what was logged."""
        self._pass_on(run)

    @hookimpl
    def run_finished(self, run: Any) -> None:
        """Pass on the rest."""
        self._pass_on(run)

    def _pass_on(self, run: Any) -> None:
        if is_first() and len(run.metrics) > self._passed:
            new = run.metrics[self._passed :]
            self._passed = len(run.metrics)
            self.write(run, [flat(entry) for entry in new])


class CsvObserver(Logger):
    """Writes ``metrics.csv`` into the run: one line per entry, one column per name.

    When a new name appears, the file is rewritten atomically.
    """

    def __init__(self) -> None:
        super().__init__()
        self._columns: list[str] = []

    def begin(self, run: Any) -> int:
        """Start again from the first entry, which drops what a resume cut off."""
        return 0

    def write(self, run: Any, entries: list[Entry]) -> None:
        """Append lines, or rewrite all of them if there are new columns."""
        path = run.path / "metrics.csv"
        names = list(dict.fromkeys(name for entry in entries for name in entry))
        new = [name for name in names if name not in self._columns]
        if not new:
            _append(path, self._columns, entries)
            return
        self._columns += new
        with replacing(path) as temporary:
            _append(temporary, self._columns, [flat(entry) for entry in run.metrics], head=True)


def _append(path: Path, columns: list[str], entries: list[Entry], head: bool = False) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if head:
            writer.writeheader()
        writer.writerows(entries)


def _numbers(entry: Entry) -> Iterator[tuple[str, float]]:
    for name, value in entry.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
            yield name, value


class TensorboardObserver(Logger):
    """Writes event files to the run's folder ``tensorboard``; needs coview[tensorboard]."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RequestError("--observe tensorboard needs: pip install tensorboard") from error
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def begin(self, run: Any) -> int:
        """Open an event file, hiding what an interrupted run wrote after its checkpoint."""
        folder = run.path / "tensorboard"
        there = folder.is_dir()
        resumed = {"purge_step": run.step + 1} if there else {}
        self._writer = self._make(log_dir=str(folder), **resumed)
        return len(run.metrics) if there else 0

    def write(self, run: Any, entries: list[Entry]) -> None:
        """Write numbers by name and step."""
        for entry in entries:
            for name, value in _numbers(entry):
                self._writer.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class WandbObserver(Logger):
    """Sends entries to Weights & Biases, or keeps them for ``wandb sync``; needs coview[wandb].

    A resumed run keeps its id. Entries contain ``step``, the axis of all curves, so
    that wandb does not refuse steps that are done again.
    """

    @attrs.frozen
    class Settings:
        """Where entries are sent."""

        project: str = setting("coview", "the project that the run belongs to")
        name: str | None = setting(None, "the run's name; none: its directory's name")
        entity: str | None = setting(None, "user or team; none: wandb's default")
        mode: str = setting(
            "online",
            "online, or offline: write to the run's folder wandb, for wandb sync",
            one_of("online", "offline"),
        )

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        try:
            import wandb  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise RequestError("--observe wandb needs: pip install wandb") from error
        self.settings = settings
        self._wandb: Any = wandb
        self._sent: Any = None
        self._id: str | None = None

    def begin(self, run: Any) -> int:
        """Start a run at wandb, or continue it."""
        settings = self.settings
        self._sent = self._wandb.init(
            project=settings.project,
            name=settings.name or run.path.name,
            entity=settings.entity,
            mode=settings.mode,
            dir=str(run.path),
            id=self._id,
            resume=None if self._id is None else "allow",
            allow_val_change=True,
            config={
                "recipe": to_document(run.resolved.recipe),
                "data": run.data.name,
                "seed": run.settings.seed,
            },
        )
        again = self._id is not None
        self._id = str(self._sent.id)
        self._sent.define_metric("*", step_metric="step")
        return len(run.metrics) if again else 0

    def write(self, run: Any, entries: list[Entry]) -> None:
        """Send entries."""
        for entry in entries:
            self._sent.log(entry)

    def close(self) -> None:
        """Tell wandb that the run has ended."""
        if self._sent is not None:
            self._sent.finish()

    def state_dict(self) -> dict[str, Any]:
        """Return the id of the run at wandb."""
        return {"id": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the id."""
        self._id = state["id"]
