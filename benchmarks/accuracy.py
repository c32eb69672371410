"""Does speed cost accuracy? Fused views, kornia's and torchvision's, on Fashion-MNIST."""

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

# Where Debian's package puts it.
DATA = Path("/usr/share/datasets/fashion-mnist")
BACKENDS = ("fused", "kornia", "torchvision")
SEEDS = (0, 1, 2, 3, 4)
NAME, KEY = "accuracy", ("method", "backend", "seed")
# As many epochs as it takes for seeds to differ little: after one, BYOL's differ by three points.
IMAGES, EPOCHS, BATCH_SIZE = 20_000, 10, 128
COMMON = runner.flat(runner.DESIGN[NAME]["common"])
OWN = {method: runner.flat(table) for method, table in runner.DESIGN[NAME]["own"].items()}
ABOUT = runner.DESIGN[NAME]["about"]
# Student's t for four degrees of freedom, two-sided 95 %.
T_FOUR = 2.776
OPTIONS = {"what": ("measure", "table"), "rows": OWN, "data": DATA, "processes": 2}


def main(asked: runner.Asked) -> None:
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
    with tempfile.TemporaryDirectory() as folder:
        if asked.what == "measure":
            first_images(asked.data, Path(folder), rest=True)

        def once(*one: Any) -> dict[str, float]:
            return {"knn_top1": top1(train_command(*one, f"idx:{folder}"), asked.quick)}

        print(table(runner.runs(asked, design, KEY, wanted, once)))


def first_images(source: Path, folder: Path, rest: bool = False) -> None:
    """Write an IDX set of the first training images; tests are another's, or all the rest too."""
    for kind, header, size in (("images-idx3", 16, 28 * 28), ("labels-idx1", 8, 1)):
        whole = {}
        for split in ("train", "t10k"):
            (path,) = source.glob(f"{split}-{kind}-ubyte*")
            data = path.read_bytes()
            whole[split] = gzip.decompress(data) if path.suffix == ".gz" else data
        head, cut = whole["train"][:header], header + IMAGES * size
        others = whole["train"][cut:] if rest else b""
        parts = {"train": whole["train"][header:cut], "t10k": whole["t10k"][header:] + others}
        for split, body in parts.items():
            count = (len(body) // size).to_bytes(4, "big")
            (folder / f"{split}-{kind}-ubyte").write_bytes(head[:4] + count + head[8:] + body)


def train_command(method: str, backend: str, seed: int, data: str) -> list[str]:
    """Return the arguments of ``coview`` for a run, but ``--out``; the method is a key of OWN."""
    settings = {**COMMON, **OWN[method], "views.backend": backend}
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    sets += [f"--epochs={EPOCHS}", f"--batch-size={BATCH_SIZE}", f"--seed={seed}"]
    fixed = ["--backbone=resnet10-quarter", "--no-evaluate"]
    return ["train", method.split(",")[0], f"--data={data}", *fixed, *sets]


def top1(command: list[str], quick: bool) -> float:
    data = next(word for word in command if word.startswith("--data="))
    with tempfile.TemporaryDirectory() as folder:
        more = [f"--out={folder}/run", *(["--max-steps=2"] if quick else [])]
        for words in ([*command, *more], ["evaluate", "knn", f"{folder}/run", data, "--json"]):
            # One thread: the network is too small for more, and runs can then go side by side.
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            given = {"check": True, "env": environment, "stdout": subprocess.PIPE}
            done = subprocess.run([sys.executable, "-m", "coview", *words], **given)
    return float(json.loads(done.stdout)["top1"])


def table(found: list[dict[str, Any]]) -> str:
    values = {tuple(run[key] for key in KEY): 100 * run["knn_top1"] for run in found}
    means, differences = [], []
    for method in OWN:
        by_backend = {
            b: [values[method, b, s] for s in SEEDS if (method, b, s) in values] for b in BACKENDS
        }
        for backend, each in by_backend.items():
            if each:
                said = ", ".join(f"{value:.2f}" for value in each)
                means.append((method, backend, f"{statistics.mean(each):.2f}", said))
        first, *others = BACKENDS
        for other in others:
            if len(by_backend[first]) == len(by_backend[other]) == len(SEEDS):
                both = zip(by_backend[first], by_backend[other], strict=True)
                pairs = [a - b for a, b in both]
                mean = statistics.mean(pairs)
                half = T_FOUR * statistics.stdev(pairs) / len(pairs) ** 0.5
                small = "yes" if mean - half >= -1 and mean + half <= 1 else "no"
                numbers = f"{mean:+.2f}", f"{mean - half:+.2f} to {mean + half:+.2f}"
                differences.append((method, f"{first} - {other}", *numbers, small))
    head = ("method", "difference", "points", "95 % interval", "within one point")
    first = ("method", "views", "kNN top-1, mean of five seeds", "each seed")
    return f"{runner.markdown(first, means)}\n\n{runner.markdown(head, differences)}"
