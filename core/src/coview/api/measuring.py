"""``coview.evaluate`` and ``coview.compare``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.api.results import Result
from coview.api.subjects import path_of, subject, tell, tell_bad_images
from coview.errors import CoviewError

if TYPE_CHECKING:
    from torch import nn

    from coview.training.run import Run


def evaluate(
    weights: str | Path | Run,
    evaluation: str = "knn",
    data: Any = None,
    *,
    batch_size: int = 256,
    workers: int = 0,
    on_bad_image: str = "skip",
    set: Mapping[str, Any] | None = None,
    device: str = "auto",
    backbone: str | nn.Module | None = None,
    pretrained: bool = False,
    **settings: Any,
) -> Result:
    """Measure what trained weights are worth, and record the result with their run.

    Args:
        weights: a finished run, its directory, a file that coview or another program wrote,
            or ``timm:NAME``.
        evaluation: ``knn``, ``linear``, ``finetune``, ``retrieval``, or another protocol that
            ``coview list protocols`` shows.
        data: as for :func:`train`; default: the run's own.
        batch_size: images at once in computing features.
        workers: processes that decode images.
        on_bad_image: what to do with unreadable images: ``"skip"`` or ``"stop"``.
        set: settings of the data that replace those of training, ``{"data.range": "0,4095"}``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backbone: for another program's file, its architecture's name; for a run whose backbone
            was a Python object, one like it, or ``"file.py:function"``, which makes one.
        pretrained: for ``timm:NAME``: load timm's published weights, not random ones.
        **settings: of the evaluation, with the names and defaults of
            ``coview evaluate NAME --help``.

    Returns:
        A dictionary with the keys of ``coview evaluate NAME --json`` (accuracies are shares
        from 0 to 1). It prints as sentences: what was measured, whether that is better than
        raw pixels and the untrained network if the run measured these on the same data, and
        how much may be chance.

    Raises:
        RequestError: the request is wrong; the message lists every problem.
        CoviewError: the work failed.
    """
    from coview.evaluation.sentences import sentence
    from coview.evaluation.verdict import verdict
    from coview.evaluation.ways import prepared

    evaluation, measure = prepared(evaluation, settings)
    measured = subject(
        weights,
        data,
        device=device,
        backbone=backbone,
        pretrained=pretrained,
        batch_size=batch_size,
        workers=workers,
        on_bad_image=on_bad_image,
        set=set,
    )
    values = measure(measured)
    first = measured.loaded[0] if measured.loaded else measured.data
    origin = {} if measured.origin is None else {"origin": measured.origin}
    document = {"weights": str(measured.weights), **origin, "data": first.name, **values}
    for loaded in measured.loaded:
        document |= tell_bad_images(loaded)
    told = {"evaluation": evaluation, **document, "data_fingerprint": first.fingerprint}
    kept = _kept(measured.weights, told)
    judged = verdict(measured.weights, document, first, own=data is None)
    return Result(document, [sentence(evaluation, document), *judged], kept)


def _kept(weights: Path, told: dict[str, Any]) -> Path | None:
    """Record a result with its run; return the file, None for other weights and where it fails."""
    from coview.evaluation.results import FILE, remember

    try:
        remember(weights, told, sys.argv)
    except (CoviewError, OSError) as error:
        # What took long to measure is not lost with it.
        tell([f"The result was not kept with the run: {error}"])
        return None
    file = weights / FILE
    return file if file.is_file() else None


def compare(runs: str | Path | Run | Iterable[str | Path | Run]) -> list[dict[str, Any]]:
    """Return every evaluation of runs, as ``coview evaluate table`` prints them.

    Args:
        runs: runs or their directories; one or several.

    Returns:
        One dictionary for each evaluation, the one at the end of training among them: what
        was trained, how it was evaluated, accuracies as shares from 0 to 1, and the command.

    Raises:
        RequestError: there is no such run.
        CoviewError: a run's file of results is damaged.
    """
    from coview.evaluation.results import rows

    several = runs if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
    return rows([path_of(run) for run in several])
