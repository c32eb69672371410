"""kNN of 50,000 rows: bfloat16 with float32 scores of the best, beside float32."""

from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks import engine, runner

GALLERY, K = 50_000, 200
OPTIONS = {"rounds": 7, "threads": 2, "queries": 4096, "rows": (128, 512, 2048), "steady": True}


def main(asked: runner.Asked) -> None:
    torch.manual_seed(0)
    queries, rows = (16, 400) if asked.quick else (asked.queries, GALLERY)
    sizes = (queries, asked.rounds, engine.device(), rows)
    about = {"design": runner.DESIGN["knn"]["about"], "gallery": rows, "queries": queries, "k": K}
    runner.rows(asked, about, lambda width: {"rows_by_width": {width: row(int(width), *sizes)}})


def row(width: int, queries: int, rounds: int, device: str, rows: int = GALLERY) -> dict[str, Any]:
    strength = torch.linspace(1, 0.05, width, device=device) ** 2
    train, asked = (torch.randn(n, width, device=device) * strength + 0.1 for n in (rows, queries))
    gallery, probes = normalize(train), normalize(asked)
    halves = gallery.bfloat16(), probes.bfloat16()

    def product(gallery: torch.Tensor, probes: torch.Tensor, nearest: bool = False) -> None:
        for chunk in probes.split(1024):
            scores = chunk @ gallery.T
            if nearest:
                scores.topk(K, dim=1)

    def ours(half: bool) -> Any:
        parts = list(engine.nearest(engine.InMemory(train), asked, K, half=half))
        return torch.cat([p for _, p in parts]), torch.cat([c for c, _ in parts])

    entrants = {
        "coview bfloat16": lambda: ours(True),
        "product": lambda: product(gallery, probes),
        "product and top-k": lambda: product(gallery, probes, nearest=True),
        "bfloat16 product": lambda: product(*halves),
        "coview float32": lambda: ours(False),
    }
    found = runner.turns(entrants, rounds, warm_up=1)
    for pair in (("bfloat16 product", "product"), ("coview float32", "product and top-k")):
        found["ratios"] += runner.compared(found["raw_seconds"], *pair)
    (full, cosines), (near, scores) = ours(False), ours(True)
    same = (full.sort(1).values == near.sort(1).values).all(dim=1).double().mean().item()
    return {
        **found,
        "queries_with_the_same_neighbours": same,
        "largest_difference_of_a_cosine": (cosines - scores).abs().max().item(),
        "used_by_default": engine.half_pays(rows, asked, K),
        "peak_mib": {"coview bfloat16": runner.peak_mib(entrants["coview bfloat16"])},
    }
