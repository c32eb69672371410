"""``coview.neighbours``: the images that a network takes for the most similar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.api.subjects import subject, tell_bad_images
from coview.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

    from coview.evaluation.found import Neighbours
    from coview.training.run import Run


def neighbours(
    weights: str | Path | Run,
    query: str | Path | Sequence[str | Path] | None = None,
    data: Any = None,
    k: int = 5,
    *,
    images: int = 8,
    mistakes: bool = False,
    out: str | Path | None = None,
    batch_size: int = 256,
    workers: int = 0,
    on_bad_image: str = "skip",
    set: Mapping[str, Any] | None = None,
    device: str = "auto",
    backbone: str | nn.Module | None = None,
    pretrained: bool = False,
) -> Neighbours:
    """Find the images that a network takes for the most similar, by cosine of its features.

    ::

        found = coview.neighbours("runs/simclr-photos", "photo.jpg", "photos/")
        found[0].paths, found[0].similarities
        found.draw("neighbours.png")

    Args:
        weights: a finished run, its directory, weights in a file, or ``timm:NAME``.
        query: a photograph, a folder of them, or several; None: a few of the data's test
            images, which are compared with its training images.
        data: the images to search, as for :func:`train`; None: the run's own.
        k: number of neighbours.
        images: number of queries, if none are given.
        mistakes: take test images that their neighbours vote for another class of, those
            with the largest majority first.
        out: PNG file to draw.
        batch_size: images at once in computing features.
        workers: processes that decode images.
        on_bad_image: ``"skip"`` or ``"stop"``: what to do with unreadable images of the data.
        set: settings of the data that replace those of training, ``{"data.range": "0,4095"}``.
        device, backbone, pretrained: as for :func:`evaluate`.

    Returns:
        A sequence with an item for each query (:class:`coview.evaluation.found.Found`).

    Raises:
        RequestError: there is no such run, data or query; no labels to know mistakes by.
        CoviewError: a query cannot be read, there are no mistakes, or the picture cannot be
            written.
    """
    from coview.evaluation.looking import look

    for name, value in {"k": k, "images": images}.items():
        if value < 1:
            raise RequestError(f"{name} must be at least 1, not {value}.")
    if query is not None and mistakes:
        raise RequestError("Mistakes are looked for among the data's test images: give no query.")
    paths = None if query is None else _files(query)
    asked = subject(
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
    found = look(asked, paths, k, images=images, mistakes=mistakes)
    tell_bad_images(asked.data)
    if out is not None:
        found.draw(out)
    return found


def _files(query: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the files that are asked for; of a folder, the images below it."""
    from coview.data.sources.listing import list_images

    files: list[str] = []
    for name in [query] if isinstance(query, (str, Path)) else query:
        path = Path(name)
        if path.is_dir():
            files += [str(path / image) for image in list_images(path, path).names]
        elif path.is_file():
            files.append(str(path))
        else:
            raise RequestError(f"There is no file or folder {name} to look for.")
    if not files:
        raise RequestError("No query was given.")
    return files
