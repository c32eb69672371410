"""What a job does on the cluster: ``coview train`` in a process, resumed after a requeue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coview.errors import CoviewError

PAUSE = 0.5
"""Seconds between two looks at the process."""
PATIENCE = 300.0
"""Seconds that a task whose run was ended waits for the job to be requeued or killed."""


class Train:
    """A run; submitit calls it in every task, and :meth:`checkpoint` before a job is taken away."""

    def __init__(self, words: Sequence[str], out: Path) -> None:
        """Remember what is trained.

        Args:
            words: what follows ``coview train``.
            out: the run's directory, which every node sees.
        """
        self.words, self.out = tuple(words), Path(out)
        self._pid = 0

    def command(self) -> list[str]:
        """Return the command: it begins the run, or goes on from its checkpoint."""
        saved = any(self.out.glob("checkpoints/*.pt"))
        ask = ["--resume", str(self.out)] if saved else [*self.words, "--out", str(self.out)]
        return [sys.executable, "-m", "coview", "train", *ask]

    def __call__(self) -> str:
        """Train; return the run's directory.

        Raises:
            CoviewError: the run failed.
        """
        # Slurm's warning reaches every process of a job; the run is told of it by checkpoint().
        process = subprocess.Popen(
            self.command(), env={**os.environ, **_distributed()}, preexec_fn=_without_warning
        )
        self._pid = process.pid
        # Not wait(): a signal's handler must be able to wait for the same process.
        while process.poll() is None:
            time.sleep(PAUSE)
        status = process.returncode
        if status in (128 + signal.SIGTERM, 128 + signal.SIGUSR1):
            # Slurm ended all processes of the job; the requeue that follows ends this one, and
            # failing before would end the job for good.
            time.sleep(PATIENCE)
        if status:
            raise CoviewError(f"coview train ended with status {status}: see what it printed.")
        return str(self.out)

    def checkpoint(self) -> Any:
        """Let the run save a checkpoint, and return what is queued in its place."""
        import submitit

        if self._pid:
            try:
                os.kill(self._pid, signal.SIGTERM)
                # Leaves the process to be waited for by the loop above.
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
            except (ProcessLookupError, ChildProcessError):
                pass  # it has ended already
        return submitit.helpers.DelayedSubmission(Train(self.words, self.out))


def _without_warning() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _distributed() -> dict[str, str]:
    """Return what tells torch of the other tasks, by the names that torchrun uses."""
    import submitit

    about = submitit.helpers.TorchDistributedEnvironment()
    if about.world_size < 2:
        return {}
    return {
        "MASTER_ADDR": about.master_addr,
        "MASTER_PORT": str(about.master_port),
        "RANK": str(about.rank),
        "WORLD_SIZE": str(about.world_size),
        "LOCAL_RANK": str(about.local_rank),
        "LOCAL_WORLD_SIZE": str(about.local_world_size),
    }
