"""kNN of 50,000 rows: bfloat16 with float32 scores of the best, beside float32.

python benchmarks/knn.py [--rounds 7] [--queries 4096] [--threads 2]      writes results/knn.json

Features are random with a common mean and a few strong directions, as networks' are.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from side_by_side import alternate, compared, facts, peak_mib, steady_allocator, write

GALLERY, K = 50_000, 200
DESIGN = (
    "The 200 nearest of 50,000 rows, by width. *product* is the matrix product of unit rows in "
    "float32, alone; *product and top-k* the least that an exact search does with it; *bfloat16 "
    "product* the least that a search that proposes in bfloat16 does. coview's times begin with "
    "rows of any length and end with sorted float32 cosines."
)


def features(count: int, width: int, device: str) -> Any:
    """Return (count, width) float32."""
    import torch

    strength = torch.linspace(1, 0.05, width, device=device) ** 2
    return torch.randn(count, width, device=device) * strength + 0.1


def row(width: int, queries: int, rounds: int, device: str, rows: int = GALLERY) -> dict[str, Any]:
    """Measure one width."""
    import torch
    from torch.nn.functional import normalize

    from coview.evaluation.neighbours import half_pays, nearest
    from coview.evaluation.rows import InMemory

    train, asked = features(rows, width, device), features(queries, width, device)
    gallery, probes = normalize(train), normalize(asked)
    half_gallery, half_probes = gallery.bfloat16(), probes.bfloat16()

    def product() -> None:
        for chunk in probes.split(1024):
            chunk @ gallery.T

    def half_product() -> None:
        for chunk in half_probes.split(1024):
            chunk @ half_gallery.T

    def exact() -> None:
        for chunk in probes.split(1024):
            (chunk @ gallery.T).topk(K, dim=1)

    def ours(half: bool) -> Any:
        parts = list(nearest(InMemory(train), asked, K, half=half))
        return torch.cat([p for _, p in parts]), torch.cat([c for c, _ in parts])

    entrants = {
        "product": product,
        "product and top-k": exact,
        "bfloat16 product": half_product,
        "coview float32": lambda: ours(False),
        "coview bfloat16": lambda: ours(True),
    }
    seconds = alternate(entrants, rounds, warm_up=1)
    (full, cosines), (found, scores) = ours(False), ours(True)
    same = (full.sort(1).values == found.sort(1).values).all(dim=1).double().mean().item()
    return {
        "median_s": {name: statistics.median(values) for name, values in seconds.items()},
        "ratios": [
            *(compared(seconds, "coview bfloat16", o) for o in entrants if o != "coview bfloat16"),
            compared(seconds, "bfloat16 product", "product"),
            compared(seconds, "coview float32", "product and top-k"),
        ],
        "queries_with_the_same_neighbours": same,
        "largest_difference_of_a_cosine": (cosines - scores).abs().max().item(),
        "used_by_default": half_pays(rows, asked, K),
        "peak_mib": {"coview bfloat16": peak_mib(lambda: ours(True))},
        "raw_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512, 2048])
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = {}
    for width in options.widths:
        rows[str(width)] = row(width, options.queries, options.rounds, device)
        print(width, {k: v for k, v in rows[str(width)].items() if k != "raw_seconds"}, flush=True)
    document = {
        "design": DESIGN,
        "gallery": GALLERY,
        "queries": options.queries,
        "k": K,
        "rows_by_width": rows,
    }
    write("knn", {**facts(options.rounds), **document})


if __name__ == "__main__":
    steady_allocator()
    main()
