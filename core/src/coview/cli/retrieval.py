"""``coview evaluate retrieval``: search for similar images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coview.commands.options import data_help, percent
from coview.commands.weights import load_like, measuring, opened, weights_argument
from coview.errors import RequestError


@click.command("retrieval")
@weights_argument
@click.option("--data", help=f"{data_help} Its test images are queries in its training images.")
@click.option("--query", metavar="DATA", help="Use all images of this data set as queries.")
@click.option(
    "--gallery", metavar="DATA", help="Search all images of this data set, which may be --query's."
)
@click.option(
    "--match",
    type=click.Choice(["label", "name"]),
    default="label",
    show_default=True,
    help="Images match by class (label), or by file name without folder and ending (name).",
)
@click.option(
    "-k",
    "ks",
    multiple=True,
    default=(1, 5, 10),
    show_default=True,
    type=click.IntRange(min=1),
    help="Report recall@k. Repeatable.",
)
@measuring
def retrieval(
    weights: Path,
    data: str | None,
    query: str | None,
    gallery: str | None,
    match: str,
    ks: tuple[int, ...],
    batch_size: int,
    workers: int,
    device: str,
    as_json: bool,
    backbone: str | None,
    pretrained: bool,
) -> None:
    """Measure recall@k and mean average precision of image search by cosine."""
    if (query is None) != (gallery is None):
        raise RequestError("Give both --query and --gallery, or neither.")
    if query is not None and data is not None:
        raise RequestError("Give either --data, or --query and --gallery.")
    import torch

    from coview.evaluation.embeddings import embed, readable
    from coview.evaluation.retrieval import identities, retrieve

    found = opened(weights, query or data, device, workers, backbone, pretrained)
    other = found.data
    if gallery is not None and gallery != query:
        other = load_like(gallery, found.backbone.card, workers)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": found.device,
        "workers": workers,
    }
    parts = ("all", "all") if query is not None else ("test", "train")
    queries, searched = (
        readable(embed(found.backbone, each, which, **options))
        for each, which in zip((found.data, other), parts, strict=True)
    )
    result = retrieve(
        torch.from_numpy(queries["embeddings"]).to(found.device),
        torch.from_numpy(searched["embeddings"]).to(found.device),
        identities(queries, found.data, match),
        identities(searched, other, match),
        match=match,
        ks=tuple(dict.fromkeys(ks)),
        same=query is not None and gallery == query,
    ).as_dict()
    if gallery is not None:
        result["gallery_data"] = other.name
    found.answer("retrieval", result, as_json, lambda: _sentence(result), also=other)


def _sentence(result: dict[str, Any]) -> str:
    recall = ", ".join(
        f"recall@{key.rpartition('_')[2]} {percent(value)}"
        for key, value in result.items()
        if key.startswith("recall_at_")
    )
    return (
        f"{recall}, mean average precision {percent(result['mean_average_precision'])} "
        f"({result['protocol']}, {result['queries']} queries, {result['without_match']} more "
        f"without a match, {result['gallery']} images searched)"
    )
