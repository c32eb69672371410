"""What the functions of :mod:`coview.api` return: plain values that print as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Result(dict[str, Any]):
    """A dictionary with the keys that the command prints with ``--json``; it prints as text.

    Attributes:
        told: the sentences, as the command prints them.
        kept: the file of a run's evaluations that this was added to, or None.
    """

    def __init__(
        self, values: Mapping[str, Any], told: Iterable[str], kept: Path | None = None
    ) -> None:
        super().__init__(values)
        self.told, self.kept = tuple(told), kept

    def __repr__(self) -> str:
        return "\n".join(self.told)
