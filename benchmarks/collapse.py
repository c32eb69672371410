"""Is collapse seen, and nothing else? Where the bounds of ``--observe collapse`` come from.

    python -m benchmarks collapse measure [--only NAME ...] [--steps 300]
    python -m benchmarks collapse table     into docs/collapse.md
    python -m benchmarks collapse cost      a reading's time against a step's, results/
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

from collections.abc import Sequence
from typing import Any

import attrs

import coview
from benchmarks import digits, runner

STEPS, SEEDS = 300, (0, 1, 2)
WHOLE = digits.EPOCHS * 22
Run = dict[str, Any]
"""Arguments of ``coview.train``."""


def on_digits(method: str, **changes: Any) -> Run:
    """Return a run with digits.py's settings, and what differs (``__`` for a dot)."""
    own = {key.replace("__", "."): value for key, value in changes.items() if key != "use"}
    use = {**digits.USE.get(method, {}), **changes.get("use", {})}
    return {"method": method, "set": {**digits.settings(method), **own}, "use": use}


COLLAPSING: dict[str, Run] = {
    "simsiam without stop-gradient": on_digits("simsiam", use={"target": "shared"}),
    "byol without predictor": on_digits("byol", encoder__predictor=False),
    "dino without centring": on_digits("dino", loss__centring=False),
}
# CPC and CMC have no figures on digits: their presets for small images as they are.
STEM = {"backbone.stem": "7x7"}
CROPS = {key: value for key, value in digits.COMMON.items() if key.startswith("views.")}
SOUND: dict[str, Run] = {
    **{method: on_digits(method) for method in digits.OWN},
    "cpc": {"method": "cpc", "set": STEM, "batch_size": 16},
    "cmc": {"method": "cmc", "set": {**STEM, **CROPS}},
}
BATCHES = {"simsiam": (16, 256), "byol": (16, 256), "dino": (16, 256), "swav": (256,)}
PIXELS = {"byol": (16, 64), "simclr": (16,)}
OTHER: dict[str, Run] = {
    **{
        f"{m}, {what} of {size}": {**on_digits(m), name: size}
        for what, name, sizes in (
            ("batches", "batch_size", BATCHES),
            ("images", "image_size", PIXELS),
        )
        for m in sizes
        for size in sizes[m]
    },
    "byol, a fifth of the rate": on_digits("byol", optimizer__lr=0.02),
    "simsiam, a fifth of the rate": on_digits("simsiam", optimizer__lr=0.2),
}
ALL = {**COLLAPSING, **SOUND, **OTHER}
COLUMNS = ("std", "effective_rank", "uniformity", "alignment")


OPTIONS = {"what": ("measure", "table", "cost"), "rows": ALL, "steps": STEPS}
DESIGN = {
    "data": "scikit-learn's digits at 32 pixels",
    "backbone": digits.BACKBONE,
    "epochs_of_the_schedule": digits.EPOCHS,
    "batch_size": digits.BATCH_SIZE,
    "steps_fixed_beforehand": STEPS,
    "settings": ALL,
}


def main(asked: runner.Asked) -> None:
    if asked.what == "cost":
        cost(asked)
        return
    runs = [(name, 0, 25) for name in ALL] if asked.quick else wanted(asked.steps)
    found = runner.runs(asked, DESIGN, ("name", "seed", "asked"), runs, train)
    runner.publish(asked, runner.ROOT / "docs" / "collapse.md", table(found))


def wanted(steps: int | None) -> list[tuple[str, int, int]]:
    """Return every run of the design: name, seed, steps."""
    short = STEPS if steps is None else steps
    design = [(name, seed, short) for name in {**COLLAPSING, **SOUND} for seed in SEEDS]
    return design + [(name, 0, short) for name in OTHER] + [(name, 0, WHOLE) for name in SOUND]


def train(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train once; return each reading, and the steps at which each sign was told."""
    more = {"max_steps": steps, "evaluate": False, "log_every": 25}
    run, seconds = digits.train({**ALL[name], **more}, seed)
    read = [row for row in run.metrics if "collapse/std" in row]
    told = [row for row in run.metrics if "assignment_information" in row]
    return {
        "steps": run.step,
        "seconds": seconds,
        "warned": digits.warned(run),
        "step": [row["step"] for row in read],
        **{c: [round(row.get(f"collapse/{c}", -1.0), 4) for row in read] for c in COLUMNS},
        "information": [round(row["assignment_information"], 5) for row in told],
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return, by run, the lowest readings after warm-up's first steps and the warnings."""
    lowest = ("lowest std", "lowest rank", "lowest information")
    lines = []
    for name in ALL:
        for steps in sorted({r["asked"] for r in found if r["name"] == name}):
            mine = [r for r in found if r["name"] == name and r["asked"] == steps]
            std, rank = (min(min(r[c]) for r in mine) for c in ("std", "effective_rank"))
            told = [min(r["information"]) for r in mine if r["information"]]
            numbers = f"{std:.3f}", f"{rank:.1f}", f"{min(told):.4f}" if told else ""
            first = [str(min(r["warned"].values(), default="")) for r in mine]
            warned = ", ".join(first) if any(first) else "never"
            lines.append((name, steps, len(mine), *numbers, warned))
    return runner.markdown(("run", "steps", "seeds", *lowest, "warned at step"), lines)


def cost(asked: runner.Asked) -> None:
    """Time a reading beside a training step of the same batch; say the share at the default."""
    from benchmarks.engine import CollapseObserver

    every, rounds, figures = CollapseObserver.Settings().every, 2 if asked.quick else 15, {}
    for backbone, batch_size in ((digits.BACKBONE, 64), ("resnet18", 32)):
        seconds = runner.alternate(entrants(backbone, batch_size), rounds)
        ratio = runner.compared(seconds, "reading", "step")
        share = {"every": every, "share_of_steps": ratio["median"] / every}
        figures[f"byol, {backbone}, batch of {batch_size}"] = {**ratio, **share, "seconds": seconds}
    runner.show(figures)
    runner.write("collapse-cost", {**runner.facts(rounds), "figures": figures}, asked.out)


def entrants(backbone: str, batch_size: int) -> runner.Entrants:
    """Return a training step on random images, and a reading of its records."""
    import torch

    from benchmarks.engine import measured

    plan = coview.Plan(batch_size=batch_size, image_size=32, steps_per_epoch=100, total_steps=1000)
    recipe = attrs.evolve(coview.recipe("byol"), backbone=coview.Use(backbone), presets={})
    method = coview.build(recipe, plan).train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.01)
    images = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8)
    batch, step, kept = coview.Batch(images, torch.arange(batch_size)), coview.Step(), Keep()
    method.observe(kept, "keep")

    def train_step() -> None:
        optimizer.zero_grad()
        method(batch, step).backward()
        optimizer.step()
        method.update_target(step)

    def reading() -> None:
        torch.stack(list(measured(*kept.last, 256).values())).tolist()

    return {"step": train_step, "reading": reading}


class Keep:
    """Keeps the last step's records."""

    @coview.hookimpl
    def update_target(self, encoded: Any, targets: Any) -> None:
        self.last = (encoded, targets)
