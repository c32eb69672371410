"""Is collapse seen, and nothing else? Where the bounds of ``--observe collapse`` come from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import coview
from benchmarks import digits, engine, runner

SEEDS, WHOLE = (0, 1, 2), digits.EPOCHS * 22


def arguments(table: Mapping[str, Any]) -> dict[str, Any]:
    use = {**digits.USE.get(table["method"], {}), **table.get("use", {})}
    more = {"as_on_digits": True, "use": use} if table.get("as_on_digits", True) else {}
    return digits.arguments({"set": {}, **table, **more})


RUNS = runner.DESIGN["collapse"]
DESIGN = RUNS.pop("design")
STEPS = DESIGN["steps_fixed_beforehand"]
RUNS["sound"] = {method: {"method": method} for method in digits.OWN} | RUNS["sound"]
COLLAPSING, SOUND, OTHER = ({n: arguments(t) for n, t in table.items()} for table in RUNS.values())
ALL = {**COLLAPSING, **SOUND, **OTHER}
COLUMNS = ("std", "effective_rank", "uniformity", "alignment")
OPTIONS = {"what": ("measure", "table", "cost"), "rows": ALL, "steps": STEPS}


def main(asked: runner.Asked) -> None:
    if asked.what == "cost":
        cost(asked)
        return
    runs = [(name, 0, 25) for name in ALL] if asked.quick else wanted(asked.steps)
    found = runner.runs(asked, {**DESIGN, "settings": ALL}, ("name", "seed", "asked"), runs, train)
    runner.publish(asked, "docs/collapse.md", table(found))


def wanted(steps: int | None) -> list[tuple[str, int, int]]:
    short = steps or STEPS
    design = [(name, seed, short) for name in {**COLLAPSING, **SOUND} for seed in SEEDS]
    return design + [(name, 0, short) for name in OTHER] + [(name, 0, WHOLE) for name in SOUND]


def train(name: str, seed: int, steps: int) -> dict[str, Any]:
    more = {"max_steps": steps, "evaluate": False, "log_every": 25}
    run, found = digits.train({**ALL[name], **more}, seed)
    read = [row for row in run.metrics if "collapse/std" in row]
    told = [row for row in run.metrics if "assignment_information" in row]
    return {
        "steps": run.step,
        **found,
        "step": [row["step"] for row in read],
        **{c: [round(row.get(f"collapse/{c}", -1.0), 4) for row in read] for c in COLUMNS},
        "information": [round(row["assignment_information"], 5) for row in told],
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    head = ("run", "steps", "seeds", "lowest std", "lowest rank", "lowest information")
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
    return runner.markdown((*head, "warned at step"), lines)


def cost(asked: runner.Asked) -> None:
    """Time a reading beside a training step of the same batch; say the share at the default."""
    every, rounds, figures = engine.CollapseObserver.Settings().every, 2 if asked.quick else 15, {}
    for backbone, batch_size in ((digits.BACKBONE, 64), ("resnet18", 32)):
        # The paper's recipe, whose step is shorter than that of the preset for small images.
        plain = {"preset": "none", "use": {"optimizer": "sgd"}, "set": {}}
        kept, run = Keep(), engine.started("byol", batch_size, backbone, **plain)
        run.method.observe(kept, "keep")
        entrants = {"step": engine.whole(run), "reading": kept.reading}
        seconds = runner.alternate(entrants, rounds)
        (ratio,) = runner.compared(seconds, "reading", "step")
        share = {"every": every, "share_of_steps": ratio["median"] / every}
        figures[f"byol, {backbone}, batch of {batch_size}"] = {**ratio, **share, "seconds": seconds}
    runner.show(figures)
    runner.write("collapse-cost", {**runner.facts(rounds), "figures": figures}, asked.out)


class Keep:
    @coview.hookimpl
    def update_target(self, encoded: Any, targets: Any) -> None:
        self.last = (encoded, targets)

    def reading(self) -> list[float]:
        return torch.stack(list(engine.measured(*self.last, 256).values())).tolist()
