"""``coview.embed`` and ``coview.export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.api.results import Result
from coview.api.subjects import opened, subject, tell, tell_bad_images
from coview.errors import CoviewError, RequestError, unknown

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from coview.training.run import Run

ENDINGS = (".csv", ".npy", ".npz", ".safetensors", ".parquet")
SPLITS = ("all", "train", "test")


class Embeddings(Result):
    """Arrays by name; it prints as a sentence.

    Attributes:
        facts: the document that ``coview embed --json`` prints.
        labelled: whether the data have labels and a test split, so that they can be evaluated.
    """

    def __init__(
        self, table: dict[str, np.ndarray[Any, Any]], facts: dict[str, Any], labelled: bool
    ) -> None:
        where = f" in {facts['out']}" if facts["out"] else ""
        super().__init__(table, [f"{facts['images']} embeddings of width {facts['width']}{where}"])
        self.facts, self.labelled = facts, labelled


def embed(
    weights: str | Path | Run,
    data: Any = None,
    *,
    out: str | Path | None = None,
    split: str = "all",
    batch_size: int = 256,
    workers: int = 0,
    on_bad_image: str = "skip",
    set: Mapping[str, Any] | None = None,
    device: str = "auto",
    backbone: str | nn.Module | None = None,
    pretrained: bool = False,
) -> Embeddings:
    """Compute one embedding per image.

    Args:
        weights: as for :func:`evaluate`.
        data: as for :func:`train`; default: the run's own.
        out: file to write, ending in ``.csv``, ``.npy``, ``.npz``, ``.safetensors`` or
            ``.parquet``.
        split: images to embed: ``"all"`` (in the data set's order), ``"train"`` or ``"test"``.
        batch_size, workers, on_bad_image, set, device, backbone, pretrained: as for
            :func:`evaluate`.

    Returns:
        A dictionary of arrays, a row per image: ``embeddings`` (N, D) float32, ``split``
        (N,) text and, if the data have them, ``labels`` (N,) int64, their
        ``classes`` (N,) text and ``names`` (N,) text.
        An unreadable image has a row of NaN.

    Raises:
        RequestError: the request is wrong; the message lists every problem.
        CoviewError: the work failed, or a format's library is missing.
    """
    path = None if out is None else Path(out)
    if path is not None and path.suffix not in ENDINGS:
        raise RequestError(unknown("format", path.suffix or path.name, ENDINGS))
    if split not in SPLITS:
        raise RequestError(unknown("split", split, SPLITS))
    from coview.evaluation import embeddings

    found = subject(
        weights,
        data,
        device=device,
        backbone=backbone,
        pretrained=pretrained,
        batch_size=batch_size,
        workers=workers,
        on_bad_image=on_bad_image,
        # Nothing is lost by an image that cannot be read: it has a row of NaN.
        set={"data.bad_limit": 1e9, **(set or {})},
    )
    table = embeddings.embed(found.network, found.data, split, **found.options)
    if path is not None:
        try:
            embeddings.write(path, table)
        except ImportError as error:
            raise CoviewError(f"{path.suffix} needs pyarrow: pip install pyarrow") from error
    images, width = table["embeddings"].shape
    facts = {
        "out": None if out is None else str(out),
        "images": images,
        "width": width,
        "columns": list(table),
        **({} if found.origin is None else {"origin": found.origin}),
        **tell_bad_images(found.data),
    }
    if gone := embeddings.missing(table):
        facts["missing_rows"] = gone
        tell([f"Rows of NaN stand for them: {', '.join(map(str, gone[:10]))}"])
    return Embeddings(table, facts, found.data.labelled)


def export(
    weights: str | Path | Run,
    out: str | Path,
    *,
    format: str = "safetensors",
    keys: str | None = None,
    backbone: str | nn.Module | None = None,
    pretrained: bool = False,
) -> Result:
    """Write a backbone for other programs, then read it back and compare.

    Args:
        weights: as for :func:`evaluate`.
        out: file to write.
        format: ``"safetensors"``: the backbone's tensors; ``"onnx"`` or ``"torch-export"``: a
            program with preprocessing, from images in [0, 1] to features.
        keys: for safetensors: name tensors as ``"timm"`` (default) or ``"torchvision"`` does.
        backbone, pretrained: as for :func:`evaluate`.

    Returns:
        A dictionary with the keys of ``coview export --json``, among them ``load`` (the lines
        of Python that load the file), ``size``, ``channels``, ``mean`` and ``std`` of the
        input; it prints as sentences.

    Raises:
        RequestError: the request is wrong, or the format does not suit the network.
        CoviewError: the file gives other features; it is not written then.
    """
    from coview.weights import convert
    from coview.weights.elsewhere import loading

    if format not in convert.FORMATS:
        raise RequestError(unknown("format", format, convert.FORMATS))
    if format != "safetensors" and keys is not None:
        raise RequestError("--keys is only for --format safetensors: leave it out.")
    if keys is not None and keys not in convert.KEYS:
        raise RequestError(unknown("library", keys, convert.KEYS))
    named = keys or "timm"
    found = opened(weights, backbone, pretrained)
    tell(f"note: {note}" for note in found.notes)
    exported = found.network
    difference = convert.ship(exported, Path(out), format, named)
    card = exported.card
    how = loading(exported, Path(out), format, named)
    told = [f"{out}: {card.backbone}, {exported.width} features, as {format}"]
    if format == "safetensors":
        told.append(
            f"Its input: images of {card.size} pixels with {card.channels} channels: give it "
            f"{_values(card.mean, card.std)}."
        )
    told.append(
        f"Read back: features differ by {difference:.1e}."
        if difference
        else "Read back: identical."
    )
    told.append(how.note or "To load it:")
    told += [f"  {line}" for line in how.lines]
    facts = {key: exported.meta[key] for key in ("backbone", "channels", "size", "mean", "std")}
    values = {
        "out": str(out),
        "format": format,
        "keys": named if format == "safetensors" else None,
        "width": exported.width,
        "difference": difference,
        "note": how.note,
        "load": list(how.lines),
        **facts,
    }
    return Result(values, told)


def _values(mean: Sequence[float], std: Sequence[float]) -> str:
    if not any(mean) and all(value == 1 for value in std):
        return "values in [0, 1]; do not normalise"
    return f"values in [0, 1], less mean {_short(mean)}, divided by std {_short(std)}"


def _short(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
