"""Numbers and settings of a run for MLflow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from coview.errors import RequestError
from coview.recipes.recipe import to_document
from coview.settings import setting
from coview.training.observers.logs import Entry, Logger, flat

LONGEST = 500
"""Characters of a parameter's value that every version of MLflow takes."""
AT_ONCE = 900
"""Metrics of a request; MLflow takes 1,000."""


class MlflowObserver(Logger):
    """Writes a run to MLflow: settings as parameters, numbers as metrics by step.

    Without a setting it goes to the file ``mlflow.db`` beside the run, and nothing leaves this
    machine: ``MLFLOW_TRACKING_URI`` is not read. A resumed run goes on in the same MLflow run.
    """

    @attrs.frozen
    class Settings:
        """Where a run is written."""

        tracking: str | None = setting(
            None, "address of an MLflow server or database; none: the file mlflow.db beside the run"
        )
        experiment: str = setting("coview", "the experiment that the run belongs to")
        name: str | None = setting(None, "the run's name; none: its directory's name")

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise RequestError(
                "--observe mlflow needs: pip install mlflow-skinny sqlalchemy alembic"
            ) from error
        self.settings = settings
        self._make: Any = MlflowClient
        self._client: Any = None
        self._id: str | None = None
        self._ended = "FAILED"

    def begin(self, run: Any) -> int:
        """Begin a run at MLflow, or continue it."""
        folder = run.path.resolve().parent
        tracking = self.settings.tracking or f"sqlite:///{folder / 'mlflow.db'}"
        self._client = self._make(tracking_uri=tracking)
        if self._id is not None:
            self._client.update_run(self._id, status="RUNNING")
            return len(run.metrics)
        artifacts = None if self.settings.tracking else (folder / "mlflow-files").as_uri()
        made = self._client.create_run(
            self._experiment(artifacts), run_name=self.settings.name or run.path.name
        )
        self._id = str(made.info.run_id)
        facts = {"data": run.data.name, "seed": run.settings.seed}
        for name, value in {**facts, **flat(to_document(run.resolved.recipe))}.items():
            self._client.log_param(self._id, name, str(value)[:LONGEST])
        return 0

    def _experiment(self, artifacts: str | None) -> str:
        name = self.settings.experiment
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def write(self, run: Any, entries: list[Entry]) -> None:
        """Write numbers by name and step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [
            Metric(name.replace("@", "-at-"), value, now, entry["step"])
            for entry in entries
            for name, value in _numbers(entry)
        ]
        for start in range(0, len(found), AT_ONCE):
            self._client.log_batch(self._id, metrics=found[start : start + AT_ONCE])
        if run.step == run.last_step:
            self._ended = "FINISHED"

    def close(self) -> None:
        """Tell MLflow that the run has ended."""
        if self._client is not None:
            self._client.set_terminated(self._id, self._ended)

    def state_dict(self) -> dict[str, Any]:
        """Return the id of the run at MLflow."""
        return {"id": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the id."""
        self._id = state["id"]


def _numbers(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in entry.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
            yield name, float(value)
