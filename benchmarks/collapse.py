"""Is collapse seen, and nothing else? Where the bounds of ``--observe collapse`` come from.

    python benchmarks/collapse.py measure [NAME ...] [--steps 300]
    python benchmarks/collapse.py table
    python benchmarks/collapse.py cost       a reading's time against a step's, results/
                                             collapse-cost.json

Three methods with the thing that keeps them from collapsing taken away (COLLAPSING)
must each be warned of within STEPS steps, on three seeds; every recipe as it is
(SOUND) must not be, over the same steps and, on one seed, over a whole short
training; nor must sound ones at other batch sizes, image sizes and learning rates
(OTHER). All on scikit-learn's digits with the settings of digits.py, whose learning
rates are stated there, and the observer's default settings. STEPS was fixed
before any seed but 0 was run; every reading is kept in results/collapse.json as
soon as a run is done, and a second call goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import digits
import side_by_side

from coview import Use, hookimpl

PAGE = Path(__file__).resolve().parent.parent / "docs" / "collapse.md"

STEPS = 300
SEEDS = (0, 1, 2)
WHOLE = {"seed": 0, "steps": digits.EPOCHS * 22}
NARROW_CROPS = {"views.flip_p": 0.0, "views.crop_scale": [0.3, 1.0]}

Run = dict[str, Any]
"""Arguments of ``coview.train``."""


def on_digits(method: str, use: dict[str, str] | None = None, **changes: Any) -> Run:
    """Return a run with digits.py's settings, and what differs (``__`` for a dot)."""
    own = {key.replace("__", "."): value for key, value in changes.items()}
    sets = {**digits.settings(method), **own}
    return {"method": method, "set": sets, "use": {**digits.USE.get(method, {}), **(use or {})}}


COLLAPSING: dict[str, Run] = {
    "simsiam without stop-gradient": on_digits("simsiam", {"target": "shared"}),
    "byol without predictor": on_digits("byol", encoder__predictor=False),
    "dino without centring": on_digits("dino", loss__centring=False),
}
# CPC and CMC have no figures on digits: their presets for small images as they are.
SOUND: dict[str, Run] = {method: on_digits(method) for method in digits.OWN} | {
    "cpc": {"method": "cpc", "set": {"backbone.stem": "7x7"}, "batch_size": 16},
    "cmc": {
        "method": "cmc",
        "set": {"backbone.stem": "7x7", **NARROW_CROPS},
    },
}
OTHER: dict[str, Run] = {
    "simsiam, batches of 16": {**on_digits("simsiam"), "batch_size": 16},
    "simsiam, batches of 256": {**on_digits("simsiam"), "batch_size": 256},
    "byol, batches of 16": {**on_digits("byol"), "batch_size": 16},
    "byol, batches of 256": {**on_digits("byol"), "batch_size": 256},
    "dino, batches of 16": {**on_digits("dino"), "batch_size": 16},
    "dino, batches of 256": {**on_digits("dino"), "batch_size": 256},
    "swav, batches of 256": {**on_digits("swav"), "batch_size": 256},
    "byol, images of 16": {**on_digits("byol"), "image_size": 16},
    "byol, images of 64": {**on_digits("byol"), "image_size": 64},
    "simclr, images of 16": {**on_digits("simclr"), "image_size": 16},
    "byol, a fifth of the rate": on_digits("byol", optimizer__lr=0.02),
    "simsiam, a fifth of the rate": on_digits("simsiam", optimizer__lr=0.2),
}
ALL = {**COLLAPSING, **SOUND, **OTHER}
COLUMNS = ("std", "effective_rank", "uniformity", "alignment")


def train(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train once; return each reading, and the steps at which each sign was told."""
    import coview

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = coview.train(
            **{
                "data": "digits",
                "backbone": digits.BACKBONE,
                "epochs": digits.EPOCHS,
                "batch_size": digits.BATCH_SIZE,
                **ALL[name],
            },
            seed=seed,
            max_steps=steps,
            out=Path(folder) / "run",
            evaluate=False,
            log_every=25,
            progress=False,
        )
        rows = run.metrics
    read = [row for row in rows if "collapse/std" in row]
    told = [row for row in rows if "assignment_information" in row]
    return {
        "name": name,
        "seed": seed,
        "steps": run.step,
        "seconds": round(time.perf_counter() - started, 1),
        "warned": {row["collapse"]: row["step"] for row in rows if "collapse" in row},
        "step": [row["step"] for row in read],
        **{c: [round(row.get(f"collapse/{c}", -1.0), 4) for row in read] for c in COLUMNS},
        "information": [round(row["assignment_information"], 5) for row in told],
    }


def wanted(steps: int | None) -> list[tuple[str, int, int]]:
    """Return every run of the design: name, seed, steps."""
    short = steps or STEPS
    design = [(name, seed, short) for name in {**COLLAPSING, **SOUND} for seed in SEEDS]
    design += [(name, 0, short) for name in OTHER]
    return design + [(name, WHOLE["seed"], WHOLE["steps"]) for name in SOUND]


def measure(names: Sequence[str], steps: int | None) -> None:
    """Do the runs that are missing, and keep each as soon as it is done."""
    done = side_by_side.runs("collapse")
    for name, seed, length in wanted(steps):
        asked = not names or name in names
        known = any((r["name"], r["seed"], r["asked"]) == (name, seed, length) for r in done)
        if not asked or known:
            continue
        done.append({**train(name, seed, length), "asked": length})
        print({k: done[-1][k] for k in ("name", "seed", "steps", "warned")}, flush=True)
        side_by_side.write("collapse", {**side_by_side.facts(), **_design(), "runs": done})


def _design() -> dict[str, Any]:
    return {
        "data": "scikit-learn's digits at 32 pixels",
        "backbone": digits.BACKBONE,
        "epochs_of_the_schedule": digits.EPOCHS,
        "batch_size": digits.BATCH_SIZE,
        "steps_fixed_beforehand": STEPS,
        "settings": ALL,
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return, by run, the lowest readings after warm-up's first steps and the warnings."""
    lines = [
        "| run | steps | seeds | lowest std | lowest rank | lowest information | warned at step |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ALL:
        for steps in sorted({r["asked"] for r in found if r["name"] == name}):
            mine = [r for r in found if r["name"] == name and r["asked"] == steps]
            std, rank = (min(min(r[c]) for r in mine) for c in ("std", "effective_rank"))
            told = [min(r["information"]) for r in mine if r["information"]]
            information = f"{min(told):.4f}" if told else ""
            first = [str(min(r["warned"].values(), default="")) for r in mine]
            warned = ", ".join(first) if any(first) else "never"
            lines.append(
                f"| {name} | {steps} | {len(mine)} | {std:.3f} | {rank:.1f} | {information} | "
                f"{warned} |"
            )
    return "\n".join(lines)


def cost(rounds: int = 15) -> None:
    """Time a reading beside a training step of the same batch; say the share at the default."""
    from coview.training.observers.collapse import CollapseObserver

    every = CollapseObserver.Settings().every
    figures = {}
    for backbone, batch_size in ((digits.BACKBONE, 64), ("resnet18", 32)):
        seconds = side_by_side.alternate(_entrants(backbone, batch_size), rounds)
        ratio = side_by_side.compared(seconds, "reading", "step")
        share = {"every": every, "share_of_steps": ratio["median"] / every}
        figures[f"byol, {backbone}, batch of {batch_size}"] = {**ratio, **share, "seconds": seconds}
        print(f"{backbone}: {share}", flush=True)
        side_by_side.write("collapse-cost", {**side_by_side.facts(rounds), "figures": figures})


def _entrants(backbone: str, batch_size: int) -> dict[str, Any]:
    """Return a training step on random images, and a reading of its records."""
    import torch

    from coview import Batch, Plan, Step, build, recipe
    from coview.training.observers.collapse import measured

    plan = Plan(batch_size=batch_size, image_size=32, steps_per_epoch=100, total_steps=1000)
    chosen = attrs.evolve(recipe("byol"), backbone=Use(backbone), presets={})
    method = build(chosen, plan).train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.01)
    images = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8)
    batch, step = Batch(images, torch.arange(batch_size)), Step()
    kept: list[Any] = []
    method.observe(Keep(kept), "keep")

    def train_step() -> None:
        optimizer.zero_grad()
        method(batch, step).backward()
        optimizer.step()
        method.update_target(step)

    def reading() -> None:
        torch.stack(list(measured(*kept[-1], 256).values())).tolist()

    return {"step": train_step, "reading": reading}


class Keep:
    """Keeps the last step's records."""

    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept

    @hookimpl
    def update_target(self, encoded: Any, targets: Any) -> None:
        self.kept[:] = [(encoded, targets)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("measure", "table", "cost"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--steps", type=int, help="of the short runs, in place of the fixed number")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        cost()
        return
    if arguments.what == "measure":
        measure(arguments.names, arguments.steps)
    found = table(side_by_side.runs("collapse"))
    print(found)
    side_by_side.put(PAGE, "collapse", found)


if __name__ == "__main__":
    main()
