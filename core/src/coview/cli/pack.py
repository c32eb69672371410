"""``coview pack``: decode a data set once, into arrays."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from coview.commands import completing
from coview.commands.endings import again, endings
from coview.commands.options import (
    data_settings,
    json_option,
    on_bad_image,
    on_bad_image_option,
    print_json,
)


@click.command("pack")
@click.argument("data", metavar="DATA", shell_complete=completing.datasets)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to create.")
@click.option(
    "--size",
    type=click.IntRange(min=1),
    help="Pixels per side.  [default: the data set's own, or 256 if that is larger or varies]",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1),
    help="Channels of the images.  [default: the data set's own]",
)
@click.option(
    "--whole",
    type=click.IntRange(min=1),
    metavar="SIDE",
    help="Keep the training images at their own sizes too, for recipes that cut crops from them "
    "(data.fit = whole); those of more than SIDE x SIDE pixels are reduced to no fewer. SIDE is "
    "the data.whole_side that coview show METHOD prints.",
)
@click.option(
    "--holdout",
    type=click.FloatRange(0, 0.9),
    help="Share held out for testing if there is no test split.  [default: 0.2 of images with "
    "labels, else 0]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that decode images.  [default: one per core]",
)
@on_bad_image_option
@click.option("--download", is_flag=True, help="Download the data set if it is missing.")
@json_option
def command(
    data: str,
    out: Path,
    size: int | None,
    channels: int | None,
    whole: int | None,
    holdout: float | None,
    workers: int | None,
    download: bool,
    as_json: bool,
) -> None:
    """Decode a data set once, into arrays that are memory-mapped.

    DATA is as for --data of coview train; use the result with --data pack:DIR.
    An interrupted pack continues where it stopped.
    """
    from coview.api.subjects import tell_bad_images, tell_note
    from coview.data.sources import open_source
    from coview.data.sources.packing import pack, refuse_taken, splits_of
    from coview.errors import RequestError
    from coview.terminal import controls

    refuse_taken(out)
    settings = data_settings(
        {
            "size": size,
            "channels": channels,
            "holdout": holdout,
            "fit": "square" if whole is None else "whole",
            "whole_side": whole,
            # Images are decoded as they are written: little memory, little lost if interrupted.
            "resident_mib": 1,
            "on_bad_image": on_bad_image(),
        }
    )
    loaded = open_source(data, download).load(settings)
    for note in loaded.notes:
        tell_note(note)
    counts = {name: len(split) for name, split in splits_of(loaded).items()}
    kept = 0 if loaded.train.whole is None else len(loaded.train)
    if whole is not None and not kept:
        raise RequestError(
            f"--whole: {data} gives its images at one size alone, so pack it without that option."
        )
    workers = (os.cpu_count() or 1) if workers is None else workers
    with click.progressbar(
        length=sum(counts.values()) + kept, label="packing", file=controls(sys.stderr)
    ) as bar:
        pack(loaded, out, workers, bar.update, whole)
    bad = tell_bad_images(loaded, "have others in their places")
    each = loaded.channels * loaded.size**2
    if as_json:
        shape = [loaded.channels, loaded.size, loaded.size]
        print_json({"out": str(out), "images": counts, "whole": kept, "shape": shape, **bad})
        return
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    total = (sum(counts.values()) * each + kept * loaded.mean_pixels * loaded.channels) / 2**20
    also = ", those to train on also at their own sizes" if kept else ""
    click.echo(
        f"{listed} images of {loaded.size} pixels{also}, {loaded.channels} channels, {total:.1f} "
        f"MiB in {out}"
    )
    endings([f"next: {again(('train', 'simclr', '--data', f'pack:{out}'))}"])
