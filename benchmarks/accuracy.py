"""Does speed cost accuracy? Fused views, kornia's and torchvision's, on Fashion-MNIST.

    python -m benchmarks accuracy [measure] [--data DIR] [--processes 2]
    python -m benchmarks accuracy table         the paired differences, in Markdown

SimCLR and BYOL train with each backend of views from the same five seeds: equal
initial weights and equal batches, so that runs of one seed are a pair. What is
compared is kNN top-1 (weighted, k = 200) of networks trained on the first 20,000
training images (torchvision's views are made image by image, and set the cost of
the whole study) on all others, the test split among them, so that chance among
images adds little to chance in training. Every run is kept in
results/accuracy.json as soon as it is done; a second call goes on with those that
are missing.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import runner

DATA = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts it."""
BACKENDS = ("fused", "kornia", "torchvision")
SEEDS = (0, 1, 2, 3, 4)
NAME, KEY = "accuracy", ("method", "backend", "seed")
# As many epochs as it takes for seeds to differ little: after one, BYOL's differ by three points.
IMAGES, EPOCHS, BATCH_SIZE = 20_000, 10, 128
COMMON = runner.flat(runner.DESIGN["accuracy"]["common"])
OWN = {method: runner.flat(table) for method, table in runner.DESIGN["accuracy"]["own"].items()}
ABOUT = runner.DESIGN["accuracy"]["about"]
# Student's t for four degrees of freedom, two-sided 95 %.
T_FOUR = 2.776


# So many processes train at once, a thread each.
OPTIONS = {"what": ("measure", "table"), "rows": OWN, "data": DATA, "processes": 2}


def main(asked: runner.Asked) -> None:
    """Do the runs that are not done yet; the file's others must be of this design."""
    design = {
        "data": f"Fashion-MNIST, trained on {IMAGES} images, measured on the 50,000 others",
        "commands": {m: ["coview", *train_command(m, "BACKEND", 0, "DATA")] for m in OWN},
    }
    before = {**design, "runs": [], **runner.document(NAME, asked.out)}
    stale = {m for m, c in design["commands"].items() if before["commands"].get(m) != c}
    if before["data"] != design["data"] or any(run["method"] in stale for run in before["runs"]):
        raise SystemExit(f"{NAME}.json has runs of another design: take them out.")
    # Pair after pair, the longest run of each first, so that no process is left alone with one.
    wanted = [(m, b, s) for s in SEEDS for b in reversed(BACKENDS) for m in reversed(OWN)]
    wanted = [(m, BACKENDS[0], 0) for m in OWN] if asked.quick else wanted
    with tempfile.TemporaryDirectory() as folder:
        if asked.what == "measure":
            first_images(asked.data, Path(folder), rest=True)

        def once(*one: Any) -> dict[str, float]:
            return {"knn_top1": top1(train_command(*one, f"idx:{folder}"), asked.quick)}

        print(table(runner.runs(asked, design, KEY, wanted, once)))


def first_images(source: Path, folder: Path, rest: bool = False) -> None:
    """Write an IDX data set with the first training images of another, and all test images.

    Args:
        source: of the other.
        folder: where it goes.
        rest: the other training images are test images too.
    """
    for kind, header, size in (("images-idx3", 16, 28 * 28), ("labels-idx1", 8, 1)):
        head, train = _read(source, f"train-{kind}", header)
        _, test = _read(source, f"t10k-{kind}", header)
        cut = IMAGES * size
        parts = {"train": train[:cut], "t10k": test + (train[cut:] if rest else b"")}
        for split, body in parts.items():
            count = (len(body) // size).to_bytes(4, "big")
            (folder / f"{split}-{kind}-ubyte").write_bytes(head[:4] + count + head[8:] + body)


def _read(source: Path, name: str, header: int) -> tuple[bytes, bytes]:
    (path,) = source.glob(f"{name}-ubyte*")
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return file.read(header), file.read()


def train_command(method: str, backend: str, seed: int, data: str) -> list[str]:
    """Return the arguments of ``coview`` for one run, but for ``--out``.

    Args:
        method: a key of ``OWN``: a method's name, and after a comma how it differs.
        backend: of views.
        seed: of weights, batches and views.
        data: as ``--data`` takes it.
    """
    settings = {**COMMON, **OWN[method], "views.backend": backend}
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    sets += [f"--epochs={EPOCHS}", f"--batch-size={BATCH_SIZE}", f"--seed={seed}"]
    fixed = ["--backbone=resnet10-quarter", "--no-evaluate"]
    return ["train", method.split(",")[0], f"--data={data}", *fixed, *sets]


def top1(command: list[str], quick: bool) -> float:
    """Train, and measure what the weights are worth."""
    data = next(word for word in command if word.startswith("--data="))
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        _coview(*command, f"--out={out}", *(["--max-steps=2"] if quick else []))
        return float(json.loads(_coview("evaluate", "knn", out, data, "--json"))["top1"])


def _coview(*words: str) -> bytes:
    # One thread: the network is too small for more, and runs can then go side by side.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "coview", *words]
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout


def differences(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the paired difference of each pair of backends, in points, with its interval."""
    values = {(r["method"], r["backend"], r["seed"]): 100 * r["knn_top1"] for r in found}
    rows = []
    for method, other in ((method, other) for method in OWN for other in BACKENDS[1:]):
        both = [((method, BACKENDS[0], seed), (method, other, seed)) for seed in SEEDS]
        if not all(key in values for pair in both for key in pair):
            continue
        pairs = [values[first] - values[second] for first, second in both]
        mean = statistics.mean(pairs)
        half = T_FOUR * statistics.stdev(pairs) / len(pairs) ** 0.5
        rows.append(
            {
                "method": method,
                "difference": f"{BACKENDS[0]} - {other}",
                "points": mean,
                "interval_95": (mean - half, mean + half),
                "within_a_point": mean - half >= -1 and mean + half <= 1,
            }
        )
    return rows


def table(found: list[dict[str, Any]]) -> str:
    """Return the means of each backend and the paired differences, in Markdown."""
    lines = []
    for method, backend in ((method, backend) for method in OWN for backend in BACKENDS):
        mine = [r for r in found if (r["method"], r["backend"]) == (method, backend)]
        values = [100 * run["knn_top1"] for run in sorted(mine, key=lambda run: run["seed"])]
        if values:
            each = ", ".join(f"{value:.2f}" for value in values)
            lines.append((method, backend, f"{statistics.mean(values):.2f}", each))
    means = runner.markdown(
        ("method", "views", "kNN top-1, mean of five seeds", "each seed"), lines
    )
    lines = []
    for row in differences(found):
        low, high = row["interval_95"]
        verdict = "yes" if row["within_a_point"] else "no"
        numbers = f"{row['points']:+.2f}", f"{low:+.2f} to {high:+.2f}"
        lines.append((row["method"], row["difference"], *numbers, verdict))
    head = ("method", "difference", "points", "95 % interval", "within one point")
    return f"{means}\n\n{runner.markdown(head, lines)}"
