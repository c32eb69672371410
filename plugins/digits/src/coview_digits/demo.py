"""``coview demo``: two minutes of training that are plainly worth it, in a table and a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coview.commands.options import device_option
from coview.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from coview.weights.exported import ExportedBackbone

METHOD, DATA, EPOCHS = "simclr", "moved-digits", 60
SETTINGS = {"views.flip_p": 0.0}
"""A digit in a mirror is another digit, or none."""


class Before:
    """Keeps the network as it was before the first step."""

    network: ExportedBackbone

    @hookimpl
    def run_started(self, run: Any) -> None:
        """Copy it, with the batch-norm statistics of the images."""
        from coview.training.measure import untrained

        self.network = untrained(run)


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), help="The run's directory.")
@click.option(
    "--epochs",
    default=EPOCHS,
    show_default=True,
    type=click.IntRange(min=1),
    help="Passes over the 4,314 training images.",
)
@click.option("--seed", default=0, show_default=True, type=int, help="Of weights and views.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the processor.")
@device_option
def command(out: Path | None, epochs: int, seed: int, threads: int | None, device: str) -> None:
    """Train SimCLR on digits for two minutes.

    Shows what it learned: accuracies before and after, and a picture of neighbours.
    """
    import torch

    import coview

    if threads:
        torch.set_num_threads(threads)
    started, before = time.perf_counter(), Before()
    words = "".join(f" --set {key}={value}" for key, value in SETTINGS.items())
    click.echo(f"coview train {METHOD} --data {DATA} --preset tiny --epochs {epochs}{words}")
    run = coview.train(
        METHOD,
        data=DATA,
        preset="tiny",
        epochs=epochs,
        set=SETTINGS,
        out=out,
        seed=seed,
        device=device,
        observe=[before],
    )
    after = coview.load_backbone(run.path).to(run.device)
    picture = run.path / "neighbours.png"
    draw(run, {"before": before.network, "after": after}, picture)
    click.echo(f"\nWho is like whom, before and after: {picture}")
    click.echo(f"\n{table(run)}\n\n{time.perf_counter() - started:.0f} s in all")


def table(run: Any) -> str:
    """Return the accuracies, by what the digit was compared with."""
    rows = (
        ("chance", 1 / len(run.data.classes)),
        ("raw pixels", run.value("raw_pixels_knn_top1")),
        ("untrained network", run.value("untrained_knn_top1")),
        ("trained network", run.value("knn_top1")),
    )
    lines = [f"  {name:<18} {100 * value:5.1f} %" for name, value in rows]
    count = len(run.data.test)
    return "\n".join([f"digit recognised by its nearest neighbours, {count} test images:", *lines])


QUERIES, NEIGHBOURS, SIDE = 8, 6, 48


def draw(run: Any, networks: dict[str, ExportedBackbone], path: Path) -> None:
    """Draw a row for each query: the image, then its nearest by each network.

    A green frame is the right digit, a red one another.
    """
    from coview.views.sheet import RIGHT, WRONG, Cell, draw_sheet, save_sheet

    train, test = run.data.train, run.data.test
    rows = [int((test.labels == label).nonzero()[0]) for label in range(QUERIES)]
    lines = [[Cell(test.images[row] / 255)] for row in rows]
    titles = ["query"]
    for title, network in networks.items():
        titles += [f"{title}\nnearest {place}" for place in range(1, NEIGHBOURS + 1)]
        for row, line, places in zip(rows, lines, nearest_rows(run, network, rows), strict=True):
            right = train.labels[places] == test.labels[row]
            for place, same in zip(places.tolist(), right.tolist(), strict=True):
                line.append(Cell(train.images[place] / 255, frame=RIGHT if same else WRONG))
    save_sheet(draw_sheet(titles, lines, SIDE), path)


def nearest_rows(run: Any, network: ExportedBackbone, rows: list[int]) -> Tensor:
    """Return the training images (Q, K) of largest cosine to these test images."""
    import torch

    from coview.data.splits import part
    from coview.evaluation.features import features
    from coview.evaluation.neighbours import nearest
    from coview.evaluation.rows import InMemory

    splits = (part(run.data.test, torch.tensor(rows)), run.data.train)
    queries, gallery = (features(network, split, device=run.device) for split in splits)
    return torch.cat([places for _, places in nearest(InMemory(gallery), queries, NEIGHBOURS)])
